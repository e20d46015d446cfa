from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file


def _events(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(autouse=True)
def _patience(monkeypatch):
    """No lines of progress, however long compiling takes."""
    monkeypatch.setattr("plait.cli.progress._EVERY_LINE", 3600.0)


def test_a_merge_leaves_a_folder_and_says_so_in_one_line(house, plait):
    done = plait("merge", "ties.yml", "out")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("out: 21 tensors, ")
    assert done.out.count("\n") == 1
    assert len(load_file(house / "out" / "model.safetensors")) == 21


def test_without_a_terminal_progress_is_plain_lines(house, plait, monkeypatch):
    monkeypatch.setattr("plait.cli.progress._EVERY_LINE", 0.0)
    lines = plait("merge", "ties.yml", "out", "--threads", "1").err.splitlines()
    assert len(lines) >= 21
    assert re.fullmatch(r"100 %  [\d.]+ kB  [\d.]+ [kM]?B/s  0 s left  \S+", lines[-1])


def test_quiet_says_nothing(house, plait):
    done = plait("merge", "ties.yml", "out", "-q")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_options_reach_the_merge(house, plait):
    assert plait("merge", "ties.yml", "out", "--shard-size", "2kB", "--threads", "1", "--memory", "64MiB").code == 0
    assert (house / "out" / "model.safetensors.index.json").exists()


def test_an_earlier_output_is_refused_unless_it_may_go(house, plait):
    assert plait("merge", "ties.yml", "out", "-q").code == 0
    again = plait("merge", "ties.yml", "out")
    assert (again.code, again.out) == (2, "")
    assert "--overwrite" in again.err
    assert plait("merge", "ties.yml", "out", "--overwrite", "-q").code == 0


def test_json_is_one_object_a_line(house, plait):
    done = plait("merge", "ties.yml", "out", "--json", "-v")
    assert (done.code, done.err) == (0, "")
    events = _events(done.out)
    kinds = [event["event"] for event in events]
    assert kinds[-1] == "done"
    assert {"start", "progress", "verify"} <= set(kinds)
    assert events[-1]["written"] <= events[-1]["total"]


def test_warnings_go_to_stderr_in_words_and_to_stdout_in_json(house, plait):
    recipe = (house / "ties.yml").read_text().replace("base_model: base", "base_model: {model: {path: base}}")
    (house / "odd.yml").write_text(
        recipe.replace("{path: base}}", "{path: base}, override_architecture: LlamaForCausalLM}")
    )
    words = plait("merge", "odd.yml", "out")
    assert words.code == 0
    assert words.err.startswith("warning: odd.yml:7: ")
    events = _events(plait("merge", "odd.yml", "out", "--overwrite", "--json").out)
    assert next(e for e in events if e["event"] == "warning")["text"].startswith("odd.yml:7: ")


def test_all_faults_of_a_recipe_with_their_lines(house, plait):
    (house / "bad.yml").write_text((house / "ties.yml").read_text().replace("weight", "wieght"))
    failed = plait("merge", "bad.yml", "out")
    assert (failed.code, failed.out) == (2, "")
    assert "bad.yml:3: " in failed.err
    assert "bad.yml:5: " in failed.err
    assert "Did you mean 'weight'?" in failed.err
    assert failed.err.endswith("faults; nothing was written.\n")
    assert not list(house.glob("out*"))


def test_a_failure_is_an_event_too(house, plait):
    (house / "bad.yml").write_text((house / "ties.yml").read_text().replace("weight", "wieght"))
    failed = plait("merge", "bad.yml", "out", "--json")
    assert failed.code == 2
    event = _events(failed.out)[-1]
    assert (event["event"], event["kind"]) == ("error", "RecipeError")
    fault = next(fault for fault in event["faults"] if fault["line"] == 3)
    assert fault["file"] == "bad.yml"
    assert "wieght" in fault["message"]
    assert "Did you mean" in fault["hint"]


def test_a_merge_that_had_to_stop_exits_with_1(house, plait, write_llama):
    def spoil(arrays):
        arrays["model.norm.weight"][3] = np.nan

    write_llama("broken", 1, change=spoil)
    (house / "nan.yml").write_text((house / "ties.yml").read_text().replace("model: a", "model: broken"))
    failed = plait("merge", "nan.yml", "out", "--json")
    assert failed.code == 1
    event = _events(failed.out)[-1]
    assert (event["kind"], event["faults"]) == ("MergeError", [])
    assert "model.norm.weight" in failed.err
    assert not (house / "out").exists()
    assert plait("merge", "nan.yml", "out", "--allow-nonfinite", "-q").code == 0


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cudaa", "torch knows no such device. Use cpu, or one that torch has, such as cuda or cuda:1."),
        ("meta", "torch cannot use it here: Cannot copy out of meta tensor; no data."),
    ],
)
def test_a_device_that_is_none_is_wrong_use(house, plait, device, said):
    failed = plait("merge", "ties.yml", "out", "--device", device)
    assert (failed.code, failed.out) == (2, "")
    assert failed.err.startswith(f"plait: --device {device}: {said}")
    assert not list(house.glob("out*"))


def test_too_little_memory_is_wrong_use(house, plait):
    failed = plait("merge", "ties.yml", "out", "--memory", "1k")
    assert failed.code == 2
    assert "Raise --memory." in failed.err


@pytest.mark.parametrize("command", [("merge", "none.yml", "out"), ("plan", "none.yml"), ("explain", "none.yml", "*")])
def test_a_recipe_that_is_not_there(house, plait, command):
    failed = plait(*command)
    assert (failed.code, failed.out) == (2, "")
    assert failed.err == (
        "Cannot read the recipe 'none.yml': No such file or directory.\n1 fault; nothing was written.\n"
    )


def test_a_method_of_ones_own(house: Path, plait, monkeypatch):
    registry = import_module("plait.methods.method")
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))  # other tests shall not see it
    (house / "mine.py").write_text(
        "from plait.methods import Array, Weights, method\n"
        "@method(paper='https://example.org', locality='element')\n"
        "def first_of_mine(weights: Weights) -> Array:\n"
        "    '''Take the first model.'''\n"
        "    return weights[0]\n"
    )
    (house / "mine.yml").write_text("models: [{model: a}, {model: b}]\nmerge_method: first_of_mine\n")
    assert plait("merge", "mine.yml", "out", "--methods", "mine.py", "-q").code == 0
    for name, array in load_file(house / "out" / "model.safetensors").items():
        np.testing.assert_array_equal(array, load_file(house / "a" / "model.safetensors")[name])
    assert "first_of_mine" in plait("methods", "first_of_mine").out
