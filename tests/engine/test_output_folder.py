"""What may be written where: nothing of the user's is lost, nothing half made looks whole, a full disk is told."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import plait
from plait.checkpoint.io import FileWriter
from plait.engine.folder import check_output


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def linear(models, recipe, small):
    models("BF16")
    return recipe("linear")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_a_folder_with_something_in_it_is_refused(linear, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(plait.OutputError, match=r"out is not empty \(notes.txt\). --overwrite replaces it whole"):
        plait.merge(linear, tmp_path / "out")
    with pytest.raises(plait.OutputError, match="does not look like a model"):
        plait.merge(linear, tmp_path / "out", overwrite=True)
    assert tree(tmp_path / "out") == {"notes.txt": b"mine"}
    assert not (tmp_path / "out.partial").exists()


def test_an_empty_folder_is_taken(linear, tmp_path):
    (tmp_path / "out").mkdir()
    plait.merge(linear, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").exists()
    assert not list(tmp_path.glob("out.*"))


@pytest.mark.parametrize("sizes", [(20_000, None), (None, 20_000)])
def test_nothing_of_an_earlier_output_survives(sizes, linear, tmp_path):
    plait.merge(linear, tmp_path / "out", shard_size=sizes[0])
    (tmp_path / "out" / "tokenizer.json").write_text("old")
    plait.merge(linear, tmp_path / "out", shard_size=sizes[1], overwrite=True)
    plait.merge(linear, tmp_path / "new", shard_size=sizes[1])
    assert tree(tmp_path / "out").keys() == tree(tmp_path / "new").keys()
    assert not list(tmp_path.glob("out.*"))


@pytest.mark.parametrize(
    "out", ["a", "a/", "a/merged", "../{here}", "base", "a/../b", "link", "link/merged"]
)  # no input is touched
def test_inputs_are_not_written_to(out, models, recipe, tmp_path):
    models("BF16")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    before = tree(tmp_path)
    path = recipe("task_arithmetic", name="../recipe.yml")
    with pytest.raises(plait.OutputError, match=r"is, holds or lies in the input|is not a folder"):
        plait.merge(path, tmp_path / out.format(here=tmp_path.name), overwrite=True)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["out.partial", "out.replaced"])
def test_inputs_whose_names_we_would_use_are_not_touched(name, models, recipe, tmp_path):
    models("BF16")
    (tmp_path / "a").rename(tmp_path / name)
    before = tree(tmp_path / name)
    path = recipe(f"models: [{{model: {name}}}, {{model: b}}]\nmerge_method: karcher\n")
    with pytest.raises(plait.OutputError, match="is, holds or lies in the input"):
        plait.merge(path, tmp_path / "out", resume=False)
    assert tree(tmp_path / name) == before


@pytest.mark.parametrize("name", ["out.partial", "out.replaced"])
def test_folders_whose_names_we_would_use_are_not_touched(name, linear, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("mine")
    with pytest.raises(plait.OutputError, match=f"{name} is in the way, and no merge made it"):
        plait.merge(linear, tmp_path / "out", resume=False, overwrite=True)
    assert tree(tmp_path / name) == {"thesis.tex": b"mine"}


def test_a_file_in_the_way(linear, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(plait.OutputError, match="is not a folder"):
        plait.merge(linear, tmp_path / "out", overwrite=True)
    with pytest.raises(plait.OutputError, match=r"cannot be made: Not a directory"):
        plait.merge(linear, tmp_path / "out" / "deeper")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_link_is_not_replaced(linear, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(plait.OutputError, match="is not a folder"):
        plait.merge(linear, tmp_path / "out", overwrite=True)


def test_a_parent_that_cannot_be_written(linear, tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write anywhere
    with pytest.raises(plait.OutputError, match=r"out.partial cannot be made: Permission denied"):
        plait.merge(linear, tmp_path / "out")


def test_parents_are_made(linear, tmp_path):
    plait.merge(linear, tmp_path / "some" / "where" / "out")
    assert [entry.name for entry in (tmp_path / "some" / "where").iterdir()] == ["out"]


def test_a_name_is_needed(tmp_path):
    with pytest.raises(plait.OutputError, match="has no name"):
        check_output(Path("/"), [], overwrite=True)


def test_too_little_space_is_told_before_work_begins(linear, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10**9, 10**9, 1000))
    with pytest.raises(plait.OutputError, match=r"0.00 GB are needed, 0.00 GB are free"):
        plait.merge(linear, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_space_that_an_interrupted_merge_has_taken_is_not_asked_for_again(linear, tmp_path, monkeypatch):
    def halt(event):
        if event.kind == "verify":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        plait.merge(linear, tmp_path / "out", on_event=halt)
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10**9, 10**9, 9000))
    plait.merge(linear, tmp_path / "out")


@pytest.mark.parametrize("nth", [1, 2, 7])
def test_a_disk_that_fills_up(nth, linear, merged, tmp_path, monkeypatch):
    whole = merged(linear)
    write, calls = os.pwrite, []

    def full(fd, data, offset):
        calls.append(offset)
        if len(calls) >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(plait.OutputError, match=r"no space left on the disk of .* \d+ free. Free some space"):
            plait.merge(linear, tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial" / "config.json").exists()
    assert merged(linear) == whole


def test_a_disk_that_fills_up_while_the_journal_is_written(linear, merged, tmp_path, monkeypatch):
    write, calls = os.write, []

    def full(fd, data):
        calls.append(data)
        if data.startswith(b'{"unit"') and len(calls) > 4:
            write(fd, data[:20])
            return 20
        return write(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(plait.OutputError, match=r"journal.jsonl: cannot be written: No space left"):
            plait.merge(linear, tmp_path / "out", threads=1)
    events: list[plait.Event] = []
    assert merged(linear, on_event=events.append) == merged(linear)
    assert events[0].kind == "resume"


def test_a_disk_that_is_full_when_the_small_files_come(linear, merged, tmp_path, monkeypatch):
    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(plait.OutputError, match=r"No space left on device \([\d.]+ GB are free\)"):
            plait.merge(linear, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert merged(linear) == merged(linear)


@pytest.fixture
def tiny_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", disk], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting is not permitted")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_disk_that_is_really_full(linear, tiny_disk, monkeypatch):
    with pytest.raises(plait.OutputError, match="are needed"):
        plait.merge(linear, tiny_disk / "out")
    with monkeypatch.context() as patch:
        patch.setattr("plait.engine.run.require_space", lambda *_: None)
        with pytest.raises(plait.OutputError, match="no space left on the disk"):
            plait.merge(linear, tiny_disk / "out")
    assert [entry.name for entry in tiny_disk.iterdir()] == ["out.partial"]
    subprocess.run(["mount", "-o", "remount,size=4m", tiny_disk], check=True)
    kinds: list[str] = []
    plait.merge(linear, tiny_disk / "out", on_event=lambda event: kinds.append(event.kind))
    assert kinds[0] == "resume"
    plait.merge(linear, tiny_disk.parent / "good")
    assert (tiny_disk / "out" / "model.safetensors").read_bytes() == (
        tiny_disk.parent / "good" / "model.safetensors"
    ).read_bytes()


def test_an_output_that_cannot_be_renamed_stays_beside(linear, tmp_path, monkeypatch):
    plait.merge(linear, tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text("{}")
    rename = Path.rename

    def refuse(self, target):
        if self.name == "out.partial":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(plait.OutputError, match="could not be renamed"):
            plait.merge(linear, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "config.json").read_text() == "{}", "the earlier output is back"
    kinds: list[str] = []
    plait.merge(linear, tmp_path / "out", overwrite=True, on_event=lambda event: kinds.append(event.kind))
    assert kinds[0] == "resume"
    assert (tmp_path / "out" / "config.json").read_text() != "{}"


def test_writers_are_closed(linear, tmp_path, monkeypatch):
    closed = []
    close = FileWriter.close
    monkeypatch.setattr(FileWriter, "close", lambda self: (closed.append(self), close(self)))
    plait.merge(linear, tmp_path / "out")
    assert len(closed) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the names of open files are read from /proc")
@pytest.mark.parametrize("sync", [True, False])
def test_what_is_to_be_on_the_disk_is_before_the_folder_has_its_name(sync, models, recipe, tmp_path, monkeypatch):
    models("BF16", shards=2)
    waited: list[tuple[str, bool]] = []
    real = os.fsync

    def note(fd: int) -> None:
        waited.append((str(Path(f"/proc/self/fd/{fd}").readlink()), (tmp_path / "out").exists()))
        real(fd)

    monkeypatch.setattr(os, "fsync", note)
    plait.merge(recipe("ties"), tmp_path / "out", sync=sync)
    before = {Path(path).name for path, published in waited if not published and "out.partial" in path}
    after = {path for path, published in waited if published}
    if sync:
        assert {path.name for path in (tmp_path / "out").iterdir()} | {"out.partial"} <= before
        assert {str(tmp_path), str(tmp_path / "out")} <= after
    else:
        assert not before & {"model.safetensors", "config.json"}
        assert not after
