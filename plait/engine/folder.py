"""The output folder: where a merge is made, when it appears, and what may be replaced."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from plait.errors import OutputError

__all__ = ["check_output", "discard", "partial_folder", "publish", "require_space"]

_OURS = ("plait.lock", "config.json", "model.safetensors", "model.safetensors.index.json")


def partial_folder(out: Path) -> Path:
    """Return the folder beside `out` in which its files are made: nothing there has a finished model's name."""
    return out.with_name(out.name + ".partial")


def check_output(out: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse an output that would destroy an input, or something that is not an earlier output.

    Raises:
        OutputError: saying what is there and the way out.
    """
    resolved = out.resolve()
    for path in inputs:
        folder = path.resolve()
        if resolved == folder or folder in resolved.parents or resolved in folder.parents:
            raise OutputError(f"{out} is, holds or lies in the input {path}. Choose another output folder.")
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


def require_space(folder: Path, needed: int) -> None:
    """Raise OutputError when the file system has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(f"{folder}: {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free.")


def publish(partial: Path, out: Path) -> None:
    """Give a finished folder its name. An earlier output steps aside first and is removed after."""
    old = None
    if out.exists():
        old = out.with_name(out.name + ".replaced")
        if old.exists():
            shutil.rmtree(old)
        out.rename(old)
    try:
        partial.rename(out)
    except OSError as error:
        if old is not None:
            old.rename(out)
        raise OutputError(f"{partial} could not be renamed to {out}: {error.strerror}.") from error
    if old is not None:
        shutil.rmtree(old)


def discard(partial: Path) -> None:
    """Remove what an earlier attempt left."""
    if partial.exists():
        shutil.rmtree(partial)


def make_folder(folder: Path) -> None:
    """Make the folder and its parents. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "")
        raise OutputError(f"{folder} cannot be made: {os.strerror(error.errno or 0)} ({name}).") from error
