"""Quantised checkpoints seen as plain ones: their weights are made on demand, band by band."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from plait.checkpoint.dequantise.search import Search
from plait.checkpoint.dequantise.settings import plain_config, settings_of
from plait.checkpoint.io import FileReader
from plait.checkpoint.names import in_natural_order, list_some
from plait.checkpoint.quantised import quantisation
from plait.checkpoint.types import Checkpoint, StoredTensor
from plait.dtypes import DTYPES
from plait.errors import CheckpointError

__all__ = ["dequantised"]

_OUT = "Dequantise it first, or name the checkpoint that it was made from."
# What only a model that computes in few bits uses: scales of what flows in and out of a layer, and of the cache.
_RUNNING = re.compile(
    r"(?P<stem>.*\.)?(?:(?:input|output|activation)_(?:scale|scale_ub|zero_point|global_scale|g_idx)"
    r"|(?P<cache>[kvq]_(?:scale|zero_point)))"
)
_COMPANION = re.compile(
    r".*(?:_scale_inv|[._](?:weight_(?:scale(?:_2)?|packed|shape|zero_point|g_idx|global_scale|format)|q(?:weight|zeros))"
    r"|\.(?:scales|g_idx|absmax|SCB|(?:nested_)?quant_map|nested_absmax|quant_state\..*|bitmask|compressed))"
)


def dequantised(checkpoint: Checkpoint) -> Checkpoint:
    """Show a quantised checkpoint as the plain one that it stands for; one that is not quantised as it is.

    Weights are made in float32 and rounded once to the config's element type (bfloat16 where that says none, or
    one narrower). Of the files only what says how weights are laid out is read: their shapes, and bitsandbytes'
    quant_state. The notes say what was done with every tensor beside the weights.

    Raises:
        CheckpointError: the format, or some tensor in it, is not read.
    """
    scheme = quantisation(checkpoint)
    if scheme is None:
        return checkpoint
    settings = settings_of(checkpoint.config)
    told = f"{checkpoint.reference} is quantised ({scheme})"
    if why := settings.refused():
        raise CheckpointError(f"{told}: {why}. {_OUT}")
    with FileReader() as reader:
        search = Search(checkpoint.tensors, settings, reader)
        search.run()
    unused = _running(search)
    problems = search.problems or _left_over(search, unused)
    if problems:
        texts = [f"{why}: {list_some(names)}" for why, names in problems.items()]
        raise CheckpointError(f"{told}; not all of it can be read: {'; '.join(texts)}. {_OUT}")
    if not search.made:
        hint = "If its weights are plain, take quantization_config out of its config.json."
        raise CheckpointError(f"{told}, but has none of that format's tensors beside its weights. {hint}")
    return _plain(checkpoint, search, unused, scheme)


def _running(search: Search) -> dict[str, StoredTensor]:
    """Find the scales of activations beside weights that are made, and those of the cache."""
    found = {}
    for name, tensor in search.tensors.items():
        match = _RUNNING.fullmatch(name)
        if match and name not in search.absorbed:
            beside = f"{match['stem'] or ''}weight" in search.made
            if beside or (match["cache"] and tensor.size == 1):
                found[name] = tensor
    return found


def _left_over(search: Search, unused: Mapping[str, StoredTensor]) -> dict[str, list[str]]:
    """Find what belongs to a quantised weight that was not understood."""
    rest = [t for name, t in search.tensors.items() if name not in search.absorbed and name not in unused]
    odd = [t.name for t in rest if _COMPANION.fullmatch(t.name)]
    bare = [t.name for t in rest if t.name not in odd and t.dtype in {"F8_E4M3", "F8_E5M2", "F8_E8M0"}]
    bare += [t.name for t in rest if t.name.endswith("weight") and t.dtype in {"I8", "U8", "I32"}]
    found = {"no weight takes these": odd, "these have no scale": bare}
    return {why: names for why, names in found.items() if names}


def _plain(checkpoint: Checkpoint, search: Search, unused: Mapping[str, StoredTensor], scheme: str) -> Checkpoint:
    kept = [t for name, t in checkpoint.tensors.items() if name not in search.absorbed and name not in unused]
    tensors = in_natural_order([*kept, *search.made.values()])
    return replace(
        checkpoint,
        tensors=tensors,
        config=plain_config(checkpoint.config),
        aliases={a: b for a, b in checkpoint.aliases.items() if a in tensors and b in tensors},
        notes=(*checkpoint.notes, *_notes(checkpoint, search, unused, scheme)),
        left_out={**checkpoint.left_out, **_left_out(search, unused)},
    )


def _left_out(search: Search, unused: Mapping[str, StoredTensor]) -> dict[str, str]:
    """What of the files no weight is made from, and why."""
    held = {part.name for made in search.made.values() for part in made.held}
    said = [name for name in search.absorbed if name not in held]
    return {
        **dict.fromkeys(unused, "a scale that only the quantised model uses"),
        **dict.fromkeys(said, "it says how a weight is stored, and has been read for that"),
    }


def _notes(checkpoint: Checkpoint, search: Search, unused: Mapping[str, StoredTensor], scheme: str) -> list[str]:
    beside = [name for name, weight in search.absorbed.items() if name != weight]
    kinds: dict[str, int] = {}
    for name in beside:
        kind = name.removeprefix(search.absorbed[name].removesuffix("weight")).lstrip("._")
        kinds[kind] = kinds.get(kind, 0) + 1
    read = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    dtype = DTYPES[search.settings.dtype].name
    count = len(search.made)
    what = f"{count} tensor{'s' if count > 1 else ''} dequantised to {dtype} as they are read"
    notes = [f"Quantised, {scheme}: {what}, from {len(search.absorbed)} stored ones ({read} beside the weights)."]
    if plain_config(checkpoint.config) != checkpoint.config:
        notes.append("Its quantization_config is left out: what is made of it is not quantised.")
    if unused:
        notes.append(f"Left out, scales that only the quantised model uses: {list_some(list(unused))}.")
    return notes
