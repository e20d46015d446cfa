"""Which files of a folder are the checkpoint, and what the others are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from plait.checkpoint.config import read_json
from plait.checkpoint.index import check_numbering, read_index, read_shards, unindexed
from plait.checkpoint.names import list_some, natural_key
from plait.checkpoint.types import StoredTensor
from plait.errors import CheckpointError
from plait.hub.pieces import names_in

__all__ = ["read_folder"]

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True, slots=True)
class _Choice:
    """The shards to read, in natural order, and the index that names them (None: there is none)."""

    shards: tuple[str, ...]
    index: str | None = None


def read_folder(folder: str) -> tuple[dict[str, StoredTensor], list[str]]:
    """Read the headers of the checkpoint in `folder` (absolute): safetensors where there are any, else torch's.

    Returns: the tensors by name, and notes on files left aside.

    Raises:
        CheckpointError: there is no checkpoint, more than one, or a broken one.
    """
    try:
        with os.scandir(folder) as entries:
            here = {entry.name for entry in entries if not entry.is_dir()}
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror}.") from error
    present = sorted(here.union(names_in(folder)), key=natural_key)
    choice = _choose_safetensors(folder, present) or _choose_torch(folder, present)
    if choice is None:
        raise CheckpointError(_nothing_found(folder, present))
    if choice.index is None:
        tensors, notes = read_shards(folder, choice.shards)
        if len(choice.shards) > 1:
            notes.append(f"No index: {len(choice.shards)} files read as one checkpoint: {list_some(choice.shards)}.")
    else:
        file = folder + os.sep + choice.index
        weight_map = read_index(file, frozenset(present))
        shards = sorted(dict.fromkeys(weight_map.values()), key=natural_key)
        tensors, notes = read_shards(folder, shards)
        notes += unindexed(file, weight_map, tensors)
        choice = _Choice(tuple(shards), choice.index)
    return tensors, notes + _left_aside(present, choice)


def _choose_safetensors(folder: str, present: Sequence[str]) -> _Choice | None:
    found = [name for name in present if name.endswith(".safetensors") and name not in _ADAPTERS]
    plain = [name for name in found if not name.startswith("consolidated")] or found
    indexes = [
        name for name in present if name.endswith(".safetensors.index.json") and not name.startswith("consolidated")
    ]
    return _choose(folder, plain, indexes, "model.safetensors")


def _choose_torch(folder: str, present: Sequence[str]) -> _Choice | None:
    found = [name for name in present if name.startswith("pytorch_model") and name.endswith(".bin")]
    indexes = [name for name in present if name == "pytorch_model.bin.index.json"]
    return _choose(folder, found, indexes, "pytorch_model.bin")


def _choose(folder: str, found: Sequence[str], indexes: Sequence[str], single: str) -> _Choice | None:
    """Choose between an index, the one file `single`, and all that was found."""
    main = f"{single}.index.json"
    index = main if main in indexes else indexes[0] if len(indexes) == 1 and single not in found else None
    if index is not None:
        if single in found and set(read_index(folder + os.sep + index, None).values()) != {single}:
            raise CheckpointError(
                f"{folder}: {single} and {index} are both there, so one of them is left over from another save. "
                f"Remove the stale one, or name the file: {folder}{os.sep}{single}."
            )
        return _Choice((), index)
    if single in found:
        return _Choice((single,))
    if found:
        check_numbering(folder, found)
        return _Choice(tuple(found))
    return None


def _left_aside(present: Sequence[str], choice: _Choice) -> list[str]:
    """Say in notes which files with weights, or that may run code when loaded, were not opened."""
    used = set(choice.shards)
    others = [name for name in present if name not in used]
    pickles = [name for name in others if name.endswith(_PICKLES) and not name.startswith("consolidated")]
    duplicates = [
        name
        for name in others
        if fnmatchcase(name, "consolidated*.safetensors") or fnmatchcase(name, "consolidated*.pth")
    ]
    weights = [name for name in others if name.endswith(".safetensors") and name not in duplicates]
    notes = []
    if pickles:
        notes.append(f"Pickles beside the weights, not opened: {list_some(pickles, 20)}.")
    if duplicates:
        notes.append(f"The same weights in another layout, not read: {list_some(duplicates)}.")
    if weights:
        notes.append(f"Other safetensors beside the weights, not read: {list_some(weights)}.")
    return notes


def _nothing_found(folder: str, present: Sequence[str]) -> str:
    adapter = next((name for name in _ADAPTERS if name in present), None)
    if adapter is not None:
        base = None
        if "adapter_config.json" in present:
            base = read_json(folder + os.sep + "adapter_config.json").get("base_model_name_or_path")
        return (
            f"{folder}: an adapter (LoRA), not a model: it has {adapter} and no weights of its own. "
            f"Name it behind its base: {base or '<its base>'}+{folder}."
        )
    there = f"It has {list_some(present, 12)}." if present else "It is empty."
    hint = ""
    if loose := [name for name in present if name.endswith((".pt", ".pth", ".bin"))]:
        hint = f" If one of them is the weights, name the file: {folder}{os.sep}{loose[0]}."
    return (
        f"{folder}: no checkpoint in it: neither *.safetensors nor pytorch_model.bin, whole or in shards. {there}{hint}"
    )
