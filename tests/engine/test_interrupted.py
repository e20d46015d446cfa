"""Interrupted: nothing that looks finished; run again: it goes on, and only as itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import plait
from plait.checkpoint.io import FileWriter

LARGE = {f"model.layers.{i}.mlp.up_proj.weight": (1024, 1024 + i) for i in range(24)}
RUN = "import plait, sys; plait.merge(sys.argv[1], sys.argv[2], threads=1, verify=False)"


class HaltError(Exception):
    pass


def lines(out: Path) -> list[dict]:
    journal = out.with_name(out.name + ".partial") / "journal.jsonl"
    if not journal.exists():
        return []
    return [json.loads(line) for line in journal.read_bytes().split(b"\n")[:-1]]


def units(out: Path) -> list[dict]:
    return [line for line in lines(out) if "unit" in line]


@pytest.fixture
def halted(models, recipe, tmp_path, small):
    """A merge of the method that was stopped after so many bytes; returns the recipe and the output."""

    def made(method: str = "linear", after: int = 120_000, at: str = "", **options) -> tuple[Path, Path]:
        if not (tmp_path / "a").exists():
            models("BF16")
        path, out = recipe(method), tmp_path / "out"

        def halt(event) -> None:
            if event.bytes_written > after or (at and event.text == at):
                raise HaltError

        with pytest.raises(HaltError):
            plait.merge(path, out, threads=1, on_event=halt, **options)
        assert not out.exists()
        return path, out

    return made


@pytest.fixture
def wrote(monkeypatch):
    """The file offsets of all writes from now on."""
    offsets: list[int] = []
    write_at = FileWriter.write_at

    def spy(self, file, offset, buffer):
        offsets.append(offset)
        write_at(self, file, offset, buffer)

    monkeypatch.setattr(FileWriter, "write_at", spy)
    return offsets


def test_killed_again_and_again(write, recipe, tmp_path):
    for seed, name in enumerate(("base", "a", "b")):
        write(name, seed, "BF16", shapes=LARGE)
    path = recipe("ties")
    plait.merge(path, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "whole")
    draw, out, kills = np.random.default_rng(0), tmp_path / "out", 0
    while kills < 5:
        before = len(units(out)) if kills else 0
        child = subprocess.Popen([sys.executable, "-c", RUN, str(path), str(out)], cwd=tmp_path)
        while child.poll() is None and (not (tmp_path / "out.partial").exists() or len(units(out)) <= before):
            time.sleep(0.0005)  # starting takes long, merging does not: count from the first new unit
        time.sleep(draw.random() * 0.005)
        child.kill()
        child.wait()
        if out.exists():
            break
        kills += 1
        assert not (tmp_path / "out.partial" / "config.json").exists()
        assert len(units(out)) > before, "nothing of the runs before was kept"
    else:
        plait.merge(path, out)
    assert kills > 2
    assert {f.name: f.read_bytes() for f in out.iterdir()} == {
        f.name: f.read_bytes() for f in (tmp_path / "whole").iterdir()
    }


@pytest.mark.representatives
def test_what_is_done_is_not_done_again(method, halted, merged, recipe, wrote):
    path, out = halted(method)
    whole_units = units(out)
    assert whole_units
    del wrote[:]
    events: list[plait.Event] = []
    again = merged(path, on_event=events.append)
    resumed = len(wrote)
    assert events[0].kind == "resume"
    assert events[0].text.startswith(f"{len(whole_units)} units")
    del wrote[:]
    assert merged(path) == again
    assert resumed <= len(wrote) - len(whole_units)


def test_fresh_starts_anew(halted, merged):
    path, _ = halted()
    events: list[plait.Event] = []
    assert merged(path, resume=False, on_event=events.append) == merged(path)
    assert events[0].kind == "start"


def _touch(root: Path) -> dict:
    file = root / "a" / "model.safetensors"
    os.utime(file, ns=(1, 1))
    return {}


def _lower(root: Path) -> dict:
    text = (root / "recipe.yml").read_text()
    (root / "recipe.yml").write_text(text.replace("0.7", "0.6"))
    return {}


@pytest.mark.parametrize("change", [_touch, _lower, lambda _: {"seed": 5}, lambda _: {"shard_size": 50_000}])
def test_another_plan_starts_anew(change, halted, merged, tmp_path):
    path, _ = halted("dare_ties")
    options = change(tmp_path)
    events: list[plait.Event] = []
    again = merged(path, on_event=events.append, **options)
    assert events[0].kind == "start"
    assert again == merged(path, **options)


def test_a_changed_method_starts_anew(halted, models, recipe, tmp_path, merged):
    from plait.methods import load_methods
    from plait.methods.method import _METHODS

    source = (
        "from plait.methods import Array, Weights, method\n"
        "@method(paper='https://example.org', locality='element')\n"
        "def mine(weights: Weights) -> Array:\n"
        "    '''Scale the first.'''\n"
        "    return weights[0] * 2\n"
    )
    text = "models: [{model: a}, {model: b}]\nmerge_method: mine\n"
    try:
        (tmp_path / "mine.py").write_text(source)
        load_methods([str(tmp_path / "mine.py")])
        halted(text)
        del _METHODS["mine"]
        (tmp_path / "mine.py").write_text(source.replace("* 2", "* 3"))
        load_methods([str(tmp_path / "mine.py")])
        events: list[plait.Event] = []
        path = recipe(text)
        assert merged(path, on_event=events.append) == merged(path)
        assert events[0].kind == "start"
    finally:
        _METHODS.pop("mine", None)


@pytest.mark.parametrize("place", ["first", "last"])
def test_damaged_units_are_done_again(place, halted, merged, tmp_path, wrote):
    path, out = halted()
    index, unit = units(out)[0]["unit"]
    begin = plait.plan(path).placed[index].offset + 2 * 8192 * unit
    file = tmp_path / "out.partial" / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[begin + (0 if place == "first" else 2 * 8192 - 1)] ^= 1
    file.write_bytes(raw)
    del wrote[:]
    again = merged(path)
    assert begin in wrote
    assert merged(path) == again


def test_a_file_that_is_gone_is_made_again(halted, merged, tmp_path):
    path, _ = halted()
    (tmp_path / "out.partial" / "model.safetensors").unlink()
    assert merged(path) == merged(path)


@pytest.mark.parametrize(
    "tail", [b'{"unit":[0,', b'{"unit":[0,0]}\n', b"\xff\xfe\n", b'{"unit":7,"out":"x","in":[]}\n[1]\n', b"{}\n"]
)
def test_lines_that_are_not_whole_are_not_believed(tail, halted, merged, tmp_path):
    path, out = halted()
    journal = tmp_path / "out.partial" / "journal.jsonl"
    count = len(units(out))
    journal.write_bytes(journal.read_bytes() + tail)
    events: list[plait.Event] = []
    assert merged(path, on_event=events.append) == merged(path)
    assert events[0].text.startswith(f"{count} units")


def test_what_follows_a_line_cut_short_counts(halted, tmp_path):
    path, out = halted(after=70_000)
    journal = tmp_path / "out.partial" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"unit":[0,')
    few = len(units(out))
    halted(after=150_000)
    assert len(units(out)) > few
    with pytest.raises(HaltError):
        plait.merge(path, out, on_event=_halt_at_once)


def _halt_at_once(event) -> None:
    assert event.kind == "resume"
    raise HaltError


def test_two_merges_into_one_folder(models, recipe, tmp_path, small):
    models("BF16")
    path = recipe("linear")
    seen = []

    def meanwhile(event) -> None:
        if event.kind == "progress" and not seen:
            for resume in (True, False):
                with pytest.raises(plait.OutputError, match="being written by another merge") as error:
                    plait.merge(path, tmp_path / "out", resume=resume)
                seen.append(str(error.value))

    plait.merge(path, tmp_path / "out", threads=1, on_event=meanwhile)
    assert len(seen) == 2
    assert max(file.name for file in (tmp_path / "out").iterdir()) == "plait_recipe.yml"


def test_something_came_to_be_at_out_meanwhile(models, recipe, tmp_path, small):
    models("BF16")

    def meanwhile(event) -> None:
        if event.kind == "verify":
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "mine").write_text("keep")

    with pytest.raises(plait.OutputError, match="is not empty"):
        plait.merge(recipe("linear"), tmp_path / "out", on_event=meanwhile)
    assert (tmp_path / "out" / "mine").read_text() == "keep"
    assert (tmp_path / "out.partial" / "model.safetensors").exists()


def test_small_files_of_an_earlier_attempt_do_not_stay(halted, merged, tmp_path):
    path, _ = halted()
    (tmp_path / "out.partial" / "chat_template.jinja").write_text("old")
    (tmp_path / "out.partial" / "assets").mkdir()
    assert merged(path).keys() == {
        "model.safetensors", "config.json", "README.md", "plait.lock", "plait_recipe.yml"
    }  # fmt: skip


def test_ctrl_c_stops_all_threads_and_a_rerun_goes_on(write, recipe, tmp_path):
    import signal
    import threading

    for seed, name in enumerate(("base", "a", "b")):
        write(name, seed, "BF16", shapes=LARGE)
    path, out = recipe("ties"), tmp_path / "out"
    sent: list[plait.Event] = []

    def interrupt(event) -> None:
        if event.kind == "progress" and event.bytes_written > 5_000_000 and not sent:
            sent.append(event)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        plait.merge(path, out, threads=2, on_event=interrupt)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("plait-") and thread.is_alive()]
    assert not out.exists()
    kinds: list[str] = []
    plait.merge(path, out, on_event=lambda event: kinds.append(event.kind))
    assert kinds[0] == "resume"
    plait.merge(path, tmp_path / "whole")
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_what_a_thread_is_at_is_waited_for():
    """Before Python 3.13 a Ctrl-C that meets `join` makes the thread look ended while it goes on."""
    import signal
    import threading
    import time

    from plait.engine.threads import run_on_threads

    finished: list[int] = []

    def act(item: int) -> None:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(1.0)
        finished.append(item)

    with pytest.raises(KeyboardInterrupt):
        run_on_threads([1, 2], lambda: act, 1, threading.Event())
    assert finished == [1]


def test_errors_of_a_listener_are_passed_on_and_harm_nothing(models, recipe, merged, tmp_path, small):
    models("BF16")
    path = recipe("ties")
    good = merged(path)
    for kind in ("start", "progress", "verify", "resume"):

        def broken(event, kind=kind) -> None:
            if event.kind == kind:
                raise ZeroDivisionError(kind)

        with pytest.raises(ZeroDivisionError, match=kind):
            plait.merge(path, tmp_path / "out", on_event=broken)
        assert not (tmp_path / "out").exists()
    assert merged(path) == good


@pytest.mark.parametrize("name", ["linear", "ties", "dare_ties", "model_stock", "arcee_fusion", "compeft", "metagpt"])
def test_progress_rises_to_the_totals(name, models, recipe, tmp_path, small):
    from plait.planning.totals import bytes_read

    models("BF16")
    events: list[plait.Event] = []
    result = plait.merge(recipe(name), tmp_path / "out", threads=2, on_event=events.append)
    read, written = ([getattr(event, what) for event in events] for what in ("bytes_read", "bytes_written"))
    assert read == sorted(read)
    assert written == sorted(written)
    assert (read[-1], written[-1]) == (bytes_read(result.plan), result.plan.bytes_written)
    assert (result.bytes_read, result.bytes_written) == (read[-1], written[-1])
    assert [event.kind for event in events if event.kind != "progress"] == ["start", "verify", "done"]


def test_progress_of_a_resumed_merge_ends_at_the_totals_too(halted):
    path, out = halted("linear")
    result = plait.merge(path, out)
    assert result.bytes_written == result.plan.bytes_written


def test_warnings_of_what_was_done_before_are_told_again(write, recipe, tmp_path, halted):
    def add(value):
        return lambda arrays: arrays.__setitem__("a.position_ids", np.full(5, value))

    for seed, name in enumerate(("base", "a", "b")):
        write(name, seed, change=add(seed))
    path, out = halted(after=10**6, at="logit_scale")
    assert any(line.get("differing") for line in lines(out))
    result = plait.merge(path, out)
    assert any("a.position_ids" in warning for warning in result.warnings)
