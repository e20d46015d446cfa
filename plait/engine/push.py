"""Uploading what plait wrote, and nothing that only looks like it."""

from __future__ import annotations

import os
from pathlib import Path

from plait.checkpoint import open_checkpoint
from plait.checkpoint.adapters import is_adapter, read_adapter
from plait.engine.journal import JOURNAL_NAME
from plait.errors import CheckpointError, OutputError
from plait.hub.push import Pushed, push_folder
from plait.output.lock import LOCK_NAME, read_lock

__all__ = ["push"]

_OUT = "--any-folder pushes it all the same."


def push(
    folder: str | os.PathLike[str],
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    any_folder: bool = False,
    quiet: bool = True,
) -> Pushed:
    """Upload what plait wrote to a model repository of the hub, made where it is missing; resumed where it was cut.

    Args:
        folder: The output of `merge` or `extract`.
        repo: `owner/name`.
        private: Make the repository private; refused where it is there and public.
        revision: The branch, made where it is missing; default main.
        message: What the commit says.
        any_folder: Do not ask whether plait wrote the folder and whether it is whole.
        quiet: Draw no progress bars.

    Returns: the address and the commit.

    Raises:
        OutputError: the folder is no finished output, or there is no token, or the name is none.
        CheckpointError: the hub refuses, or cannot be reached.
    """
    place = Path(folder)
    _check_finished(place, any_folder=any_folder)
    return push_folder(
        place,
        repo,
        private=private,
        revision=revision,
        message=message or f"{place.resolve().name}, made by plait",
        ignore=(JOURNAL_NAME, ".*", "*/.*"),
        quiet=quiet,
    )


def _check_finished(folder: Path, *, any_folder: bool = False) -> None:
    """Refuse what is not a whole model or adapter that plait wrote (`any_folder`: only what is not there).

    Only headers are read.

    Raises:
        OutputError: saying what is missing.
    """
    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder.")
    if any_folder:
        return
    if (folder / JOURNAL_NAME).exists() or folder.name.endswith(".partial"):
        raise OutputError(f"{folder}: a merge that did not come to its end. Run it again: it goes on where it stopped.")
    if not _is_ours(folder):
        raise OutputError(f"{folder}: plait did not write this: there is no {LOCK_NAME} in it. {_OUT}")
    try:
        if is_adapter(folder):
            read_adapter(folder, str(folder))
        else:
            open_checkpoint(str(folder))
    except CheckpointError as error:
        raise OutputError(f"{folder} is not whole: {error}") from error


def _is_ours(folder: Path) -> bool:
    lock, card = folder / LOCK_NAME, folder / "README.md"
    if lock.is_file():
        return read_lock(lock) is not None
    return is_adapter(folder) and card.is_file() and "extracted by plait" in card.read_text("utf-8", "replace")
