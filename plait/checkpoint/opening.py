"""From what the user wrote to a checkpoint: a folder, a file or a hub id."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from plait.checkpoint.config import config_notes, read_config
from plait.checkpoint.folder import read_folder
from plait.checkpoint.header import read_header
from plait.checkpoint.hub import fetch, is_hub_id
from plait.checkpoint.index import is_one_of_many
from plait.checkpoint.names import find_aliases, in_natural_order
from plait.checkpoint.torch_file import read_torch_file
from plait.checkpoint.types import Checkpoint, StoredTensor
from plait.errors import CheckpointError

__all__ = ["open_checkpoint"]

_TORCH_SUFFIXES = (".bin", ".pt", ".pth")


def open_checkpoint(
    reference: str | os.PathLike[str], *, revision: str | None = None, root: Path | None = None
) -> Checkpoint:
    """Read the headers of a checkpoint. No weight is read, nothing in the files is run.

    Args:
        reference: a folder, a single file (.safetensors, .bin, .pt, .pth), or a hub id `org/name` where no such
            path exists. A relative path is looked for in the working directory, then in `root`.
        revision: branch, tag or commit, of a hub id only.
        root: the recipe's folder.

    Raises:
        CheckpointError: there is nothing of that name, or what is there is no whole and sound checkpoint.
    """
    written = os.fspath(reference)
    path = _find_path(written, root)
    if path is None:
        path = _from_hub(written, revision, root)
    elif revision is not None:
        raise CheckpointError(f"{written}: a path has no revision ({revision!a}); only a hub id has.")
    if path.is_dir():
        folder, (tensors, notes) = path, read_folder(str(path))
    else:
        folder, (tensors, notes) = path.parent, _read_file(path)
    config = read_config(str(folder))
    ordered = in_natural_order(tensors.values())
    if not ordered:
        raise CheckpointError(f"{path}: a checkpoint without a single tensor.")
    return Checkpoint(
        path=path,
        reference=written,
        tensors=ordered,
        config=config,
        aliases=find_aliases(ordered),
        notes=(*notes, *config_notes(config)),
    )


def _find_path(reference: str, root: Path | None) -> Path | None:
    """Find the path that `reference` names: absolute, the links in its folder resolved, a file's own link kept."""
    if not reference:
        raise CheckpointError("A checkpoint is named by an empty text; a folder, a file or a hub id was expected.")
    expanded = Path(reference)
    with suppress(RuntimeError):  # ~somebody unknown
        expanded = expanded.expanduser()
    try:
        for candidate in (expanded, root / expanded) if root else (expanded,):
            if candidate.is_dir():
                return candidate.resolve()
            if candidate.exists():
                return candidate.parent.resolve() / candidate.name
    except OSError as error:
        raise CheckpointError(f"{reference}: cannot be looked up: {error.strerror}.") from error
    return None


def _from_hub(reference: str, revision: str | None, root: Path | None) -> Path:
    places = f"no such file or folder in {Path.cwd()}" + (f" or {root}" if root else "")
    if not is_hub_id(reference):
        raise CheckpointError(f"{reference}: {places}, and not of the form of a hub id (org/name).")
    try:
        return fetch(reference, revision)
    except CheckpointError as error:
        at = f" at revision {revision}" if revision else ""
        raise CheckpointError(f"{reference}: neither a path ({places}) nor a hub id{at}: {error}.") from error


def _read_file(file: Path) -> tuple[dict[str, StoredTensor], list[str]]:
    if is_one_of_many(file.name):
        raise CheckpointError(f"{file}: one shard of several. Name its folder: {file.parent}.")
    if not file.is_file():
        raise CheckpointError(f"{file}: neither a file nor a folder.")
    notes: list[str] = []
    if file.suffix == ".safetensors":
        found = read_header(str(file))
    elif file.suffix in _TORCH_SUFFIXES:
        found, notes = read_torch_file(str(file))
    else:
        raise CheckpointError(f"{file}: plait reads .safetensors, {', '.join(_TORCH_SUFFIXES)}, not this.")
    return {tensor.name: tensor for tensor in found}, notes
