"""Where each output tensor's bytes go: shards, headers and offsets, all known before the first byte is written."""

from __future__ import annotations

import json
from collections.abc import Sequence

from plait.dtypes import DTYPES
from plait.planning.types import File, Placed, Step

__all__ = ["DEFAULT_SHARD_SIZE", "INDEX_NAME", "index_json", "lay_out"]

DEFAULT_SHARD_SIZE = 5_000_000_000
INDEX_NAME = "model.safetensors.index.json"


def lay_out(steps: Sequence[Step], shard_size: int = DEFAULT_SHARD_SIZE) -> tuple[tuple[File, ...], tuple[Placed, ...]]:
    """Distribute tensors over files of at most `shard_size` bytes of data, as transformers names them.

    A tensor larger than that has a file of its own. Within a file wider element types come first, so that every
    tensor is aligned; otherwise order is kept.
    """
    shards: list[list[Step]] = [[]]
    filled = 0
    for step in steps:
        if filled + step.nbytes > shard_size and shards[-1]:
            shards.append([])
            filled = 0
        shards[-1].append(step)
        filled += step.nbytes
    files, placed = [], []
    for number, shard in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        ordered = sorted(shard, key=lambda step: -DTYPES[step.dtype].size)
        header, size, offsets = _header(ordered)
        files.append(File(name, size, header))
        placed += [Placed(step, number - 1, offset) for step, offset in zip(ordered, offsets, strict=True)]
    return tuple(files), tuple(placed)


def _header(steps: Sequence[Step]) -> tuple[bytes, int, list[int]]:
    """Return the header's bytes, the file's size and each tensor's offset from the file's start."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end, begins = 0, []
    for step in steps:
        begins.append(end)
        entries[step.name] = {
            "dtype": step.dtype,
            "shape": list(step.shape),
            "data_offsets": [end, end + step.nbytes],
        }
        end += step.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, start + end, [start + begin for begin in begins]


def index_json(files: Sequence[File], placed: Sequence[Placed]) -> str | None:
    """Return the index that belongs beside more than one file, or None for a single file."""
    if len(files) == 1:
        return None
    total = sum(p.step.nbytes for p in placed)
    weight_map = {p.step.name: files[p.file].name for p in placed}
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2, sort_keys=True) + "\n"
