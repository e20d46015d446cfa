"""Names of tensors: their natural order, and which of several names for the same bytes is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from plait.checkpoint.types import StoredTensor
from plait.errors import CheckpointError

__all__ = ["check_name", "find_aliases", "in_natural_order", "list_some", "natural_key"]

# int() refuses numbers of more than 4300 digits; 18 at a time is as good an order as any for such names.
_DIGITS = re.compile(r"([0-9]{1,18})")


def natural_key(name: str) -> tuple[tuple[str | int, ...], str]:
    """Make the key that sorts numbers within names by value.

    >>> sorted(["layers.10.w", "layers.2.w", "embed.w"], key=natural_key)
    ['embed.w', 'layers.2.w', 'layers.10.w']
    """
    parts = _DIGITS.split(name)
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), name


def in_natural_order(tensors: Iterable[StoredTensor]) -> dict[str, StoredTensor]:
    """Map names to tensors, layer 2 before layer 10. The names must differ already."""
    return {tensor.name: tensor for tensor in sorted(tensors, key=lambda tensor: natural_key(tensor.name))}


def find_aliases(tensors: Mapping[str, StoredTensor]) -> dict[str, str]:
    """Find names whose tensors are the same bytes with the same shape and element type: name -> name kept.

    Kept is an embedding's name rather than a head's (a tied head is written as its embedding); between equals,
    the first in the order of `tensors`.
    """
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.nbytes:
            place = tensor.file, tensor.offset, tensor.shape, tensor.strides, tensor.dtype
            groups.setdefault(place, []).append(name)
    aliases = {}
    for names in groups.values():
        kept = min(names, key=_rank)  # min takes the first among equals
        aliases.update({name: kept for name in names if name != kept})
    return aliases


def list_some(things: Sequence[object], at_most: int = 6) -> str:
    """Write out a list for a message, cut where it gets long.

    >>> list_some(["a", "b", "c"], at_most=2)
    'a, b and 1 more'
    """
    shown = ", ".join(str(thing) for thing in things[:at_most])
    return shown if len(things) <= at_most else f"{shown} and {len(things) - at_most} more"


def check_name(file: str, name: str) -> None:
    """Refuse a name that could not be written into another file's header.

    Raises:
        CheckpointError: `name` is empty or holds half a surrogate pair.
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise CheckpointError(f"{file}: the tensor name {name!a} is not valid Unicode.") from None
    if not encoded:
        raise CheckpointError(f"{file}: a tensor has an empty name.")


def _rank(name: str) -> int:
    lowered = name.lower()
    segments = lowered.split(".")
    if "shared" in segments:  # T5 and BART: encoder, decoder and head are all made from this one
        return 0
    head_like = "head" in lowered or segments[-2:-1] in (["decoder"], ["output"], ["embed_out"])
    if head_like:
        return 3
    return 1 if "emb" in lowered or "wte" in segments else 2
