"""The index of a sharded checkpoint: which tensor is in which shard, held against the shards' own headers."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from plait.checkpoint.config import read_json
from plait.checkpoint.header import read_header
from plait.checkpoint.names import list_some
from plait.checkpoint.torch_file import read_torch_file
from plait.checkpoint.types import StoredTensor
from plait.errors import CheckpointError
from plait.hub.pieces import prefetch_headers

__all__ = ["check_numbering", "is_one_of_many", "read_index", "read_shards", "unindexed"]

_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{1,9})-of-(?P<total>\d{1,9})(?P<suffix>\.\w+)")


def read_index(file: str, present: Collection[str] | None) -> dict[str, str]:
    """Read `weight_map` of the index `file`: tensor -> shard, which must be among `present`, the files beside it.

    Raises:
        CheckpointError: the index is malformed or names shards that are missing; all of them are listed.
    """
    weight_map = read_json(file).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{file}: weight_map, from tensor names to shards, is missing or empty.")
    shards = dict.fromkeys(map(str, weight_map.values()))
    outside = [shard for shard in shards if not shard.strip(".") or "/" in shard or "\\" in shard]
    if outside:
        raise CheckpointError(f"{file}: shards must be files beside the index, not {list_some(outside)}.")
    missing = sorted(shard for shard in shards if present is not None and shard not in present)
    if missing:
        raise CheckpointError(
            f"{file}: {len(missing)} of {len(shards)} shards are missing: {list_some(missing, 20)}. Fetch them again."
        )
    return {name: str(shard) for name, shard in weight_map.items()}


def read_shards(folder: str, shards: Sequence[str]) -> tuple[dict[str, StoredTensor], list[str]]:
    """Read the headers of `shards` in `folder`; returns the tensors, in file order, and notes.

    Raises:
        CheckpointError: a shard is broken, or a tensor is in two of them.
    """
    tensors: dict[str, StoredTensor] = {}
    notes: list[str] = []
    prefetch_headers(folder, shards)
    for shard in shards:
        file = folder + os.sep + shard
        if shard.endswith(".safetensors"):
            found = read_header(file)
        else:
            found, said = read_torch_file(file)
            notes += said
        before = len(tensors)
        for tensor in found:
            other = tensors.setdefault(tensor.name, tensor)
            if other is not tensor:
                raise CheckpointError(
                    f"{file}: the tensor {tensor.name!a} is in {Path(other.file).name} too; "
                    "one of them is left over from another save. Remove it, or name a single file."
                )
        if len(tensors) == before:
            notes.append(f"{shard} has no tensors.")
    return tensors, notes


def unindexed(file: str, weight_map: Mapping[str, str], tensors: Mapping[str, StoredTensor]) -> list[str]:
    """Hold the index `file` against what the shards hold; returns a note on tensors that it does not name.

    Raises:
        CheckpointError: a tensor is not in the shard that the index names.
    """
    lost = [
        name
        for name, shard in weight_map.items()
        if name not in tensors or not tensors[name].file.endswith(os.sep + shard)
    ]
    if lost:
        raise CheckpointError(
            f"{file}: {len(lost)} tensors are not in the shards that it names: "
            f"{list_some([f'{name} ({weight_map[name]})' for name in lost])}. Index and shards are not of one save."
        )
    extra = [name for name in tensors if name not in weight_map]
    if not extra:
        return []
    return [
        f"{Path(file).name} does not name {len(extra)} tensors of its shards, read all the same: {list_some(extra)}."
    ]


def check_numbering(folder: str, shards: Collection[str]) -> None:
    """Check that shards named `…-00001-of-00003.safetensors` are all there, and of one save.

    Raises:
        CheckpointError: listing every missing shard.
    """
    runs: dict[tuple[str, str], set[int]] = {}
    for shard in shards:
        if match := _NUMBERED.fullmatch(shard):
            runs.setdefault((match["stem"], match["total"] + match["suffix"]), set()).add(int(match["number"]))
    if len(runs) > 1:
        names = [f"{stem}-*-of-{rest}" for stem, rest in runs]
        raise CheckpointError(
            f"{folder}: shards of {len(runs)} saves lie side by side: {list_some(names)}. Remove those left over."
        )
    for (stem, rest), numbers in runs.items():
        total = int(rest.partition(".")[0])
        missing = [n for n in range(1, min(total, 100_000) + 1) if n not in numbers]
        if missing:
            names = [f"{stem}-{n:05d}-of-{rest}" for n in missing]
            raise CheckpointError(
                f"{folder}: {len(missing)} of {total} shards are missing: {list_some(names, 20)}. Fetch them again."
            )


def is_one_of_many(name: str) -> bool:
    """Whether a file's name says that it is one shard of several.

    >>> is_one_of_many("model-00001-of-00002.safetensors"), is_one_of_many("model-00001-of-00001.safetensors")
    (True, False)
    """
    match = _NUMBERED.fullmatch(name)
    return match is not None and int(match["total"]) > 1
