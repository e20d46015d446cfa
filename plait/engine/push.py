"""Whether a folder is something that plait finished."""

from __future__ import annotations

from pathlib import Path

from plait.checkpoint import open_checkpoint
from plait.checkpoint.adapters import is_adapter, read_adapter
from plait.engine.journal import JOURNAL_NAME
from plait.errors import CheckpointError, OutputError
from plait.output.lock import LOCK_NAME, read_lock

__all__ = ["check_finished"]

_OUT = "--any-folder pushes it all the same."


def check_finished(folder: Path, *, any_folder: bool = False) -> None:
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
