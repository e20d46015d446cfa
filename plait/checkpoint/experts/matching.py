"""The experts of a model in the order of another's: each in the place of the one that it is most like."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import xxhash

from plait.checkpoint.experts.assignment import assign
from plait.checkpoint.experts.woven import Woven
from plait.checkpoint.types import StoredTensor
from plait.dtypes import DTYPES

if TYPE_CHECKING:
    from plait.checkpoint.io import FileReader

__all__ = ["Matching", "Slabs", "matched"]

Products = npt.NDArray[np.float64]
_AT_ONCE = 1 << 24  # bytes of float64 from one model
_HELD = 1 << 26  # bytes of experts that are read whole, where a part of one cannot be read alone


@dataclass(frozen=True)
class Slabs:
    """What all experts of a layer have of one kind: one tensor with `count` slabs, or one tensor for each."""

    tensors: tuple[StoredTensor, ...]
    count: int

    @property
    def width(self) -> int:
        """Elements of one expert."""
        return self.tensors[0].size * len(self.tensors) // self.count

    @property
    def dtype(self) -> str:
        """Element type code of all."""
        return self.tensors[0].dtype

    def at(self, expert: int) -> tuple[StoredTensor, int]:
        """Return the tensor that has an expert's, and the element where that begins."""
        return (self.tensors[0], expert * self.width) if len(self.tensors) == 1 else (self.tensors[expert], 0)

    @property
    def in_pieces(self) -> bool:
        """Whether a few elements can be read without the rest."""
        return all(
            tensor.strides is None and (not isinstance(tensor.derived, Woven) or tensor.derived.is_plain)
            for tensor in self.tensors
        )

    def read(self, reader: FileReader, expert: int, first: int, out: npt.NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes of an expert's elements from `first` on."""
        tensor, start = self.at(expert)
        reader.read_elements(tensor, start + first, out)


class Matching:
    """The order that one layer's experts are to be seen in, worked out when it is first asked for, once.

    Maximal is the sum of the inner products of each expert with the one in its place, so least are the squares of all
    differences. Equal only to itself.
    """

    def __init__(
        self,
        block: str,
        own: Mapping[str, Slabs],
        base: Mapping[str, Slabs],
        by: Sequence[Sequence[str]],
        groups: int = 1,
    ) -> None:
        """Match `own` to `base`, of the layer that has `block`, by the first of `by` (names in both), the next among equals, and so on.

        Experts stay together with those of their group, of which there are `groups`.
        """
        self.block = block
        self.own, self.base, self.by, self.groups = dict(own), dict(base), tuple(tuple(one) for one in by), groups
        self._lock = threading.Lock()
        self._order: npt.NDArray[np.int64] | None = None
        state = xxhash.xxh3_128(repr((self.by, groups)).encode())
        for slabs in (*self.own.values(), *self.base.values()):
            for tensor in slabs.tensors:
                state.update(repr((tensor.key, tensor.dtype, tensor.shape, tensor.offset)).encode())
        self.mark = state.hexdigest()

    def order(self, reader: FileReader) -> npt.NDArray[np.int64]:
        """For each place the number of the expert that is seen there, `[count]`. Any thread may ask."""
        with self._lock:
            if self._order is None:
                levels = [sum((self._products(reader, name) for name in names), start=0.0) for names in self.by]
                self._order = assign([np.asarray(level) for level in levels], self.groups)
            return self._order

    @property
    def room(self) -> int:
        """Bytes that are held while the order is worked out."""
        slabs = [one for names in self.by for name in names for one in (self.own[name], self.base[name])]
        held = [0 if one.in_pieces else max(_HELD, one.width * DTYPES[one.dtype].size) for one in slabs]
        values = [min(_AT_ONCE, one.count * one.width * 8) for one in slabs]
        return 4 * max(values, default=0) + 2 * max(held, default=0)

    def _products(self, reader: FileReader, name: str) -> Products:
        """Inner products of every expert of the base with every one of the model, `[base, own]`."""
        own, base = self.own[name], self.base[name]
        found = np.zeros((base.count, own.count))
        step = max(1, _AT_ONCE // 8 // own.count)
        for rows, mine in _blocks(reader, base):
            for columns, theirs in _blocks(reader, own):
                for first in range(0, own.width, step):
                    count = min(step, own.width - first)
                    one = _values(reader, base, rows, mine, first, count)
                    found[rows.start : rows.stop, columns.start : columns.stop] += (
                        one @ _values(reader, own, columns, theirs, first, count).T
                    )
        return found


class _Matched:
    """What experts have of one kind, each in the place that a matching gives it. Equal only to itself."""

    def __init__(self, slabs: Slabs, places: range, matching: Matching) -> None:
        """See `slabs` of the experts at `places`."""
        self.slabs, self.places, self.matching = slabs, places, matching
        self.parts = slabs.tensors[places.start : places.stop] if len(slabs.tensors) > 1 else slabs.tensors
        """As many bytes as are read; which ones they are, the matching decides."""
        self.mark = f"{matching.mark} {places.start}"
        self.room = matching.room

    def __repr__(self) -> str:
        """Tell it from others, as a plan's fingerprint must."""
        return f"matched {self.mark} of {self.parts[0].key}"

    def read(self, reader: FileReader, start: int, out: npt.NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes of the elements from `start` on."""
        order = self.matching.order(reader)
        row, size = self.slabs.width, DTYPES[self.slabs.dtype].size
        done = 0
        while done < len(out):
            which, at = divmod(start + done // size, row)
            count = min((row - at) * size, len(out) - done)
            self.slabs.read(reader, int(order[self.places[which]]), at, out[done : done + count])
            done += count


def matched(slabs: Slabs, matching: Matching) -> list[StoredTensor]:
    """See the tensors of `slabs` with the experts in the order of the matching."""
    alone = len(slabs.tensors) == 1
    places = [range(slabs.count)] if alone else [range(e, e + 1) for e in range(slabs.count)]
    return [
        replace(tensor, derived=_Matched(slabs, place, matching), strides=None, native=tensor.native or tensor.dtype)
        for tensor, place in zip(slabs.tensors, places, strict=True)
    ]


def _blocks(reader: FileReader, slabs: Slabs) -> Iterator[tuple[range, Any]]:
    """Cut experts into runs; with their bytes `[experts, bytes]`, where they can only be read whole."""
    nbytes = slabs.width * DTYPES[slabs.dtype].size
    each = slabs.count if slabs.in_pieces else max(1, _HELD // max(1, nbytes))
    for start in range(0, slabs.count, each):
        experts = range(start, min(start + each, slabs.count))
        if slabs.in_pieces:
            yield experts, None
            continue
        held = np.empty((len(experts), nbytes), np.uint8)
        for place, expert in enumerate(experts):
            slabs.read(reader, expert, 0, held[place])
        yield experts, held


def _values(
    reader: FileReader, slabs: Slabs, experts: range, held: Any, first: int, count: int
) -> npt.NDArray[np.float64]:
    """Read elements of some experts, `[experts, count]`."""
    size = DTYPES[slabs.dtype].size
    if held is None:
        raw = np.empty((len(experts), count * size), np.uint8)
        for place, expert in enumerate(experts):
            slabs.read(reader, expert, first, raw[place])
    else:
        raw = held[:, first * size : (first + count) * size]
    name = DTYPES[slabs.dtype].name
    return np.ascontiguousarray(raw).view(np.dtype(getattr(ml_dtypes, name, None) or name)).astype(np.float64)
