"""From what the user wrote to a checkpoint: a folder, a file or a hub id."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from plait.checkpoint.adapters import is_adapter, put_on, read_adapter
from plait.checkpoint.adapters.apply import AdapterFile
from plait.checkpoint.config import config_notes, read_config
from plait.checkpoint.dequantise import dequantised
from plait.checkpoint.folder import read_folder
from plait.checkpoint.gguf import gguf_in, open_gguf
from plait.checkpoint.header import read_header
from plait.checkpoint.index import is_one_of_many
from plait.checkpoint.names import find_aliases, in_natural_order
from plait.checkpoint.side_files import SMALL
from plait.checkpoint.torch_file import read_torch_file
from plait.checkpoint.types import Checkpoint, StoredTensor
from plait.errors import CheckpointError
from plait.hub.library import is_hub_id
from plait.hub.pieces import notes_on

__all__ = ["open_adapter", "open_checkpoint"]

Commits = MutableMapping[str, str]

_TORCH_SUFFIXES = (".bin", ".pt", ".pth")


def open_checkpoint(
    reference: str | os.PathLike[str],
    *,
    revision: str | None = None,
    root: Path | None = None,
    adapter: str | None = None,
    adapter_revision: str | None = None,
    commits: Commits | None = None,
) -> Checkpoint:
    """Read the headers of a checkpoint. No weight is read, nothing in the files is run.

    Args:
        reference: a folder, a single file (.safetensors, .bin, .pt, .pth, .gguf), or a hub id `org/name` where no such
            path exists. A relative path is looked for in the working directory, then in `root`. The folder of an
            adapter alone is read on the base that its config names.
        revision: branch, tag or commit, of a hub id only.
        root: the recipe's folder.
        adapter: the folder or hub id of an adapter, to be seen on the checkpoint.
        adapter_revision: of the adapter's hub id.
        commits: what hub ids (`org/name@revision`) stand for, where that is settled; others are looked up and added.

    Raises:
        CheckpointError: there is nothing of that name, or what is there is no whole and sound checkpoint; an adapter
            that does not fit its base, or of a kind that cannot be read.
    """
    commits = {} if commits is None else commits
    opened = _open(os.fspath(reference), revision, root, (), commits)
    if adapter is None:
        return opened
    folder = _locate(adapter, adapter_revision, root, commits)
    return replace(
        put_on(dequantised(opened), read_adapter(folder, adapter)), reference=f"{opened.reference}+{adapter}"
    )


def open_adapter(
    reference: str, *, revision: str | None = None, root: Path | None = None, commits: Commits | None = None
) -> AdapterFile:
    """Read the headers of an adapter's folder or hub id by itself, without a base. See `open_checkpoint`.

    Raises:
        CheckpointError: there is no adapter of that name, or it is of a kind that cannot be read.
    """
    return read_adapter(_locate(reference, revision, root, {} if commits is None else commits), reference)


def _open(
    written: str, revision: str | None, root: Path | None, above: tuple[Path, ...], commits: Commits
) -> Checkpoint:
    """Open a checkpoint; `above` are the adapters whose base it is."""
    path = _locate(written, revision, root, commits)
    if path.is_dir() and is_adapter(path):
        return _open_on_its_base(path, written, root, above, commits)
    gguf = gguf_in(path)
    if gguf is not None:
        return open_gguf(gguf, path, written)
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
        notes=(*notes_on(folder), *notes, *config_notes(config)),
    )


def _open_on_its_base(
    folder: Path, written: str, root: Path | None, above: tuple[Path, ...], commits: Commits
) -> Checkpoint:
    """Open an adapter that is named alone, on the base that its config names."""
    adapter = read_adapter(folder, written)
    named, out = adapter.settings.base, f"Name it behind its base: <its base>+{written}."
    if named is None:
        raise CheckpointError(f"{adapter.settings.file}: it names no base (base_model_name_or_path). {out}")
    if folder in above or (folder / named).resolve() == folder:
        raise CheckpointError(f"{adapter.settings.file}: its base {named!a} is the adapter itself. {out}")
    beside = folder / named
    try:
        if beside.exists():
            base = _open(str(beside.resolve()), None, None, (*above, folder), commits)
        else:
            local = _find_path(named, root) is not None
            base = _open(named, None if local else adapter.settings.revision, root, (*above, folder), commits)
    except CheckpointError as error:
        message = f"{written}: an adapter, whose base {named!a} ({adapter.settings.file}) cannot be had: {error}"
        raise CheckpointError(f"{message} {out}") from error
    return replace(put_on(dequantised(replace(base, reference=named)), adapter), reference=written)


def _locate(written: str, revision: str | None, root: Path | None, commits: Commits) -> Path:
    path = _find_path(written, root)
    if path is None:
        return _from_hub(written, revision, root, commits)
    if revision is not None:
        raise CheckpointError(f"{written}: a path has no revision ({revision!a}); only a hub id has.")
    return path


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


def _from_hub(reference: str, revision: str | None, root: Path | None, commits: Commits) -> Path:
    places = f"no such file or folder in {Path.cwd()}" + (f" or {root}" if root else "")
    if not is_hub_id(reference):
        raise CheckpointError(f"{reference}: {places}, and not of the form of a hub id (org/name).")
    from plait.hub.snapshot import open_snapshot  # only now: local merges need nothing of it

    try:
        return open_snapshot(reference, revision, SMALL, commits).folder
    except CheckpointError as error:
        at = f"@{revision}" if revision else ""
        told = str(error).rstrip(".")
        end = "" if told.endswith("?") else "."
        raise CheckpointError(f"{reference}{at} (a hub id: {places}): {told}{end}") from error


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
        raise CheckpointError(f"{file}: plait reads .safetensors, .gguf, {', '.join(_TORCH_SUFFIXES)}, not this.")
    return {tensor.name: tensor for tensor in found}, notes
