"""Inputs that lie on a hub, brought here before the work begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from plait.checkpoint.types import StoredTensor
from plait.hub.pieces import partial_file
from plait.planning.totals import files_read
from plait.planning.types import Plan

__all__ = ["fetch_inputs", "fetch_tensors"]

Tell = Callable[[str, int, int], None]
"""Told of progress: which file, bytes that are there by now, bytes in all."""


def fetch_inputs(plan: Plan, tell: Tell | None = None, out: Path | None = None) -> None:
    """Fetch the files that a plan reads and that are not here, if there is room for them and for `out`.

    Raises:
        CheckpointError: offline, or the hub does not give them; what came is kept.
        OutputError: there is not enough space.
    """
    _fetch(files_read(plan), tell, out, plan.bytes_written)


def fetch_tensors(
    tensors: Iterable[StoredTensor], tell: Tell | None = None, out: Path | None = None, more: int = 0
) -> None:
    """Fetch the files that hold these tensors, if there is room for them and for `more` bytes at `out`.

    Raises: as `fetch_inputs`.
    """
    _fetch(dict.fromkeys(part.file for tensor in tensors for part in tensor.held), tell, out, more)


def _fetch(files: Iterable[str], tell: Tell | None, out: Path | None, more: int) -> None:
    away = [file for file in files if partial_file(file) is not None]
    if away:
        from plait.hub.fetch import fetch  # only now: local merges need nothing of it

        fetch(away, tell, beside=out, more=more)
