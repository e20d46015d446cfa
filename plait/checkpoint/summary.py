"""A checkpoint at a glance, from its headers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from plait.checkpoint.experts import find_banks
from plait.checkpoint.quantised import quantisation
from plait.checkpoint.side_files import side_files
from plait.checkpoint.types import Checkpoint
from plait.dtypes import DTYPES
from plait.structure import declared_tie, embedding_and_heads, find_stacks

__all__ = ["summary_data", "summary_text"]


def summary_data(checkpoint: Checkpoint, *, tensors: bool = False) -> dict[str, Any]:
    """Return what a checkpoint holds: counts, sizes, layers, ties, quantisation, side files; and every tensor on request."""
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    config = checkpoint.config or {}
    embeddings, heads = embedding_and_heads(shapes, checkpoint.config)
    kinds: Counter[str] = Counter()
    for name, tensor in checkpoint.tensors.items():
        if name not in checkpoint.aliases:
            kinds[DTYPES[tensor.dtype].name] += tensor.size
    data: dict[str, Any] = {
        "checkpoint": checkpoint.reference,
        "architecture": (config.get("architectures") or [config.get("model_type")])[0],
        "tensors": len(checkpoint.tensors),
        "parameters": sum(kinds.values()),
        "bytes": checkpoint.nbytes,
        "dtypes": dict(kinds.most_common()),
        "files": len({tensor.file for tensor in checkpoint.tensors.values()}),
        "layers": {stack.prefix: stack.length for stack in find_stacks(checkpoint.tensors)},
        "experts": _experts(shapes, config),
        "embeddings": list(embeddings),
        "heads": list(heads),
        "same_storage": dict(checkpoint.aliases),
        "tied_by_config": declared_tie(checkpoint.config),
        "quantisation": quantisation(checkpoint),
        "adapter_tensors": sum(".lora_" in name for name in checkpoint.tensors),
        "side_files": sorted(side_files(checkpoint)),
        "notes": list(checkpoint.notes),
    }
    if tensors:
        data["all_tensors"] = [
            {"name": t.name, "dtype": DTYPES[t.dtype].name, "shape": list(t.shape), "bytes": t.nbytes}
            for t in checkpoint.tensors.values()
        ]
    return data


def _experts(shapes: dict[str, tuple[int, ...]], config: Mapping[str, Any]) -> list[str]:
    """Say how many experts there are and how they are stored."""
    found = Counter((bank.count, bank.told()) for bank in find_banks(shapes, config).values())
    return [f"{count} in each of {layers} layers: {told}" for (count, told), layers in found.items()]


def summary_text(checkpoint: Checkpoint, *, tensors: bool = False) -> str:
    """Return the same as a table."""
    data = summary_data(checkpoint, tensors=tensors)
    rows = {
        "architecture": data["architecture"] or "not stated",
        "tensors": f"{data['tensors']} in {data['files']} file{'s' if data['files'] != 1 else ''}",
        "parameters": f"{data['parameters']:,}",
        "size": f"{data['bytes']:,} bytes",
        "dtypes": ", ".join(f"{name} {count:,}" for name, count in data["dtypes"].items()),
        "layers": ", ".join(f"{prefix} {count}" for prefix, count in data["layers"].items()) or "none",
        "experts": "; ".join(data["experts"]) or "none",
        "embeddings": ", ".join(data["embeddings"]) or "none found",
        "heads": ", ".join(data["heads"]) or "none of its own",
        "ties": _ties(data),
        "adapters": f"{data['adapter_tensors']} tensors" if data["adapter_tensors"] else "none",
        "quantisation": data["quantisation"] or "none",
        "side files": ", ".join(data["side_files"]) or "none",
    }
    width = max(len(title) for title in rows)
    lines = [data["checkpoint"], *(f"  {title:{width}}  {text}" for title, text in rows.items())]
    lines += [f"  note: {note}" for note in data["notes"]]
    if tensors:
        longest = max((len(one["name"]) for one in data["all_tensors"]), default=0)
        lines.append("")
        lines += [
            f"  {one['name']:{longest}}  {one['dtype']:9}  {'×'.join(map(str, one['shape'])) or 'scalar'}"
            for one in data["all_tensors"]
        ]
    return "\n".join(lines)


def _ties(data: dict[str, Any]) -> str:
    texts = [f"{name} is {kept} (one storage)" for name, kept in data["same_storage"].items()]
    said = {True: "config ties the head to the embedding", False: "config unties the head", None: "config does not say"}
    return "; ".join([*texts, said[data["tied_by_config"]]])
