"""Adapter folders: adapter_config.json and adapter_model.safetensors, or adapter_model.bin."""

from __future__ import annotations

import fnmatch
from pathlib import Path

from plait.checkpoint.adapters.apply import AdapterFile
from plait.checkpoint.adapters.settings import read_settings
from plait.checkpoint.header import read_header
from plait.checkpoint.torch_file import read_torch_file
from plait.checkpoint.types import StoredTensor
from plait.errors import CheckpointError
from plait.hub.pieces import names_in, notes_on

__all__ = ["CONFIG", "is_adapter", "read_adapter"]

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def is_adapter(folder: Path) -> bool:
    """Whether a folder has an adapter and no model of its own."""
    if not (folder / CONFIG).is_file():
        return False
    here = (*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin"))
    weights = {*(file.name for file in here), *fnmatch.filter(names_in(folder), "*.safetensors")}
    weights.update(fnmatch.filter(names_in(folder), "pytorch_model*.bin"))
    return weights.issubset(_WEIGHTS)


def read_adapter(folder: Path, reference: str) -> AdapterFile:
    """Read an adapter's config and headers.

    Raises:
        CheckpointError: there is no adapter in `folder`, or it is one of a kind that plait does not read.
    """
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{reference}: no {CONFIG} in {folder}: not an adapter folder that peft saved.")
    settings = read_settings(str(folder / CONFIG))
    file = next((folder / name for name in _WEIGHTS if (folder / name).is_file() or name in names_in(folder)), None)
    if file is None:
        raise CheckpointError(f"{folder}: an adapter's config, but neither {' nor '.join(_WEIGHTS)}.")
    found, notes = _read(file)
    tensors = {tensor.name: tensor for tensor in found}
    if not tensors:
        raise CheckpointError(f"{file}: an adapter without a single tensor.")
    return AdapterFile(reference, folder, str(file), tensors, settings, (*notes_on(folder), *notes))


def _read(file: Path) -> tuple[list[StoredTensor], list[str]]:
    if file.suffix == ".safetensors":
        return read_header(str(file)), []
    return read_torch_file(str(file))
