"""The output folder: where a merge is made, when it appears, and what may be replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from plait.engine.journal import JOURNAL_NAME
from plait.errors import OutputError

__all__ = [
    "check_output",
    "make_durable",
    "make_folder",
    "partial_folder",
    "publish",
    "removed_on_failure",
    "require_space",
    "sweep",
]

_OURS = ("plait.lock", "config.json", "model.safetensors", "model.safetensors.index.json", "adapter_config.json")


def partial_folder(out: Path) -> Path:
    """Return the folder beside `out` in which its files are made: nothing there has a finished model's name."""
    return out.with_name(out.name + ".partial")


def _replaced_folder(out: Path) -> Path:
    """Where an earlier output steps aside while the new one takes its name."""
    return out.with_name(out.name + ".replaced")


def check_output(out: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse an output that would destroy an input, or something that is not an earlier output.

    Raises:
        OutputError: saying what is there and the way out.
    """
    if not out.name:
        raise OutputError(f"{out} cannot be an output: it has no name. Choose another output folder.")
    for path in inputs:
        folder = path.resolve()
        for place in (out, partial_folder(out), _replaced_folder(out)):
            touched = place.resolve()
            if touched == folder or folder in touched.parents or touched in folder.parents:
                raise OutputError(f"{place} is, holds or lies in the input {path}. Choose another output folder.")
    _check_there(out, overwrite=overwrite)
    _check_leftover(partial_folder(out), (JOURNAL_NAME,))
    _check_leftover(_replaced_folder(out), _OURS)


def _check_there(out: Path, *, overwrite: bool) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out.is_symlink():
        raise OutputError(f"{out} is there and is not a folder. Choose another output folder.")
    found = sorted(entry.name for entry in out.iterdir())
    if not found:
        return
    if not overwrite:
        some = ", ".join(found[:3]) + (" …" if len(found) > 3 else "")
        raise OutputError(f"{out} is not empty ({some}). --overwrite replaces it whole; nothing of it is kept.")
    if not any(name in found for name in _OURS):
        raise OutputError(f"{out} does not look like a model (no {', '.join(_OURS)}), so --overwrite leaves it alone.")


def _check_leftover(place: Path, marks: Collection[str]) -> None:
    """Refuse to touch a folder of a name that we would use, unless it is what an earlier merge left."""
    if not place.exists() and not place.is_symlink():
        return
    if place.is_dir() and not place.is_symlink():
        found = {entry.name for entry in place.iterdir()}
        if not found or any(mark in found for mark in marks):
            return
    raise OutputError(f"{place} is in the way, and no merge made it. Move it, or choose another output folder.")


def require_space(folder: Path, needed: int) -> None:
    """Raise OutputError when the file system has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder}: {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free. "
            "Free some space, or name another folder."
        )


def publish(partial: Path, out: Path, *, overwrite: bool, sync: bool = False) -> None:
    """Give a finished folder its name, and end its journal. An earlier output steps aside first and is removed after.

    With `sync`, all of it is on the disk before, and its name after.

    Raises:
        OutputError: the folder could not be renamed or written to the disk, or something came to be at `out` meanwhile.
    """
    if sync:
        make_durable(partial)
    _check_there(out, overwrite=overwrite)
    old = _replaced_folder(out)
    try:
        if out.exists():
            if old.exists():
                shutil.rmtree(old)
            out.rename(old)
        partial.rename(out)
    except OSError as error:
        if old.exists() and not out.exists():
            old.rename(out)
        raise OutputError(f"{partial} could not be renamed to {out}: {error.strerror}.") from error
    shutil.rmtree(old, ignore_errors=True)
    (out / JOURNAL_NAME).unlink()
    if sync:
        make_durable(out)


def make_durable(folder: Path) -> None:
    """Wait until every file of the folder, and the folder with its name, is on the disk.

    Raises:
        OutputError: the system could not write one.
    """
    places = [*sorted(path for path in folder.rglob("*") if not path.is_symlink()), folder, folder.absolute().parent]
    for path in places:
        if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
            continue  # a system that cannot open folders keeps their names by itself
        try:
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written to the disk: {error.strerror}.") from error


def sweep(partial: Path, keep: Collection[str]) -> None:
    """Remove what an earlier attempt left, save the files of these names."""
    for entry in partial.iterdir():
        if entry.name not in keep:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def make_folder(folder: Path) -> None:
    """Make the folder and its parents. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}.") from error


@contextmanager
def removed_on_failure(partial: Path) -> Iterator[None]:
    """Leave nothing of work that stopped, where the next one begins anew."""
    try:
        yield
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
