"""Tensors put together from matrices of others: stacked, cut out, transposed, their rows taking turns."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import xxhash

from plait.checkpoint.types import StoredTensor
from plait.dtypes import DTYPES

if TYPE_CHECKING:
    import numpy.typing as npt

    from plait.checkpoint.io import FileReader

__all__ = ["Fill", "Matrix", "Rows", "Woven"]

_STRIP = 64  # columns that are turned at a time, so that what is read and written stays in a core's cache


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a matrix, `count` from `first` on, each `step` after the one before; if `turned`, columns."""

    first: int
    step: int
    count: int
    turned: bool = False

    @property
    def is_run(self) -> bool:
        """Whether they lie one behind the other, as they are."""
        return self.step == 1 and not self.turned

    def of(self, matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """View them in the matrix, each as a row."""
        stored = matrix.T if self.turned else matrix
        return stored[self.first : self.first + self.step * self.count : self.step]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix within a tensor, from its element `start` on."""

    part: StoredTensor
    start: int
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.rows * self.columns

    def read(self, reader: FileReader, first: int, count: int, dtype: str) -> npt.NDArray[Any]:
        """Read elements from `first` on, as that type, which holds all values of the tensor's own."""
        raw = np.empty(count * DTYPES[self.part.dtype].size, np.uint8)
        reader.read_elements(self.part, self.start + first, raw)
        own = raw.view(_numpy(self.part.dtype))
        return own if dtype == self.part.dtype else own.astype(_numpy(dtype))

    @property
    def place(self) -> tuple[Hashable, ...]:
        """Tell it from every other."""
        return (*self.part.key, self.part.offset, self.start, self.rows, self.columns)

    def whole(self, reader: FileReader, dtype: str) -> npt.NDArray[Any]:
        """Return all of it, `[rows, columns]`."""
        return self.read(reader, 0, self.size, dtype).reshape(self.rows, self.columns)


@dataclass(frozen=True, slots=True)
class Fill:
    """Where some rows come from, and where they go in a slab."""

    matrix: Matrix
    taken: Rows
    put: Rows


class Woven:
    """A tensor as a row of slabs of one shape `[rows, columns]`, each filled from matrices. Equal only to itself."""

    def __init__(self, slabs: Sequence[tuple[Fill, ...]], rows: int, columns: int, dtype: str, owner: str = "") -> None:
        """See the class. Together the fills of a slab are all of its elements; `owner` is whose tensor it is."""
        self.owner = owner
        self.slabs, self.rows, self.columns, self.dtype = tuple(slabs), rows, columns, dtype
        fills = [fill for slab in slabs for fill in slab]
        self.parts = tuple(dict.fromkeys(fill.matrix.part for fill in fills))
        self.files = "\n".join(dict.fromkeys(held.file for part in self.parts for held in part.held))
        self.is_plain = all(fill.taken.is_run and fill.put.is_run for fill in fills)
        size = DTYPES[dtype].size
        self.room = 0 if self.is_plain else max(sum(m.size for m in _matrices(slab)) for slab in self.slabs) * size
        """Bytes that a thread keeps while it reads."""
        self.mark = self._digest()

    def __repr__(self) -> str:
        """Tell it from others, as a plan's fingerprint must."""
        return f"woven {self.mark} of {self.files}"

    def _digest(self) -> str:
        state = xxhash.xxh3_128(repr((self.rows, self.columns, self.dtype)).encode())
        for slab in self.slabs:
            for fill in slab:
                own = fill.matrix
                state.update(repr((own.place, own.part.dtype, fill.taken, fill.put)).encode())
        return state.hexdigest()

    def read(self, reader: FileReader, start: int, out: npt.NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes of the elements from `start` on."""
        slab = self.rows * self.columns
        values = out.view(_numpy(self.dtype))
        done = 0
        while done < len(values):
            which, at = divmod(start + done, slab)
            count = min(slab - at, len(values) - done)
            make = self._copy if self.is_plain else self._weave
            make(reader, self.slabs[which], at, values[done : done + count])
            done += count

    def _copy(self, reader: FileReader, fills: Sequence[Fill], at: int, out: npt.NDArray[Any]) -> None:
        """Copy elements from `at` on, of fills that are runs."""
        for fill in fills:
            begin = fill.put.first * self.columns
            first, last = max(at, begin), min(at + len(out), begin + fill.put.count * self.columns)
            if first < last:
                taken = fill.taken.first * fill.matrix.columns + first - begin
                into = out[first - at : last - at]
                if fill.matrix.part.dtype == self.dtype:
                    reader.read_elements(fill.matrix.part, fill.matrix.start + taken, into.view(np.uint8))
                else:
                    into[:] = fill.matrix.read(reader, taken, last - first, self.dtype)

    def _weave(self, reader: FileReader, fills: Sequence[Fill], at: int, out: npt.NDArray[Any]) -> None:
        """Make the rows that `out` lies in, then take it from them."""
        first, last = at // self.columns, -(-(at + len(out)) // self.columns)
        made = np.empty((last - first, self.columns), out.dtype)
        for fill, rows in zip(fills, self._rows(reader, fills), strict=True):
            put = fill.put
            if put.turned:
                put.of(made)[:] = np.ascontiguousarray(rows[:, first:last])
                continue
            begin, end = (min(max(0, -(-(edge - put.first) // put.step)), put.count) for edge in (first, last))
            into = made[put.first + begin * put.step - first :: put.step][: end - begin]
            for low in range(0, self.columns, _STRIP):
                into[:, low : low + _STRIP] = np.ascontiguousarray(rows[begin:end, low : low + _STRIP].T).T
        out[:] = made.reshape(-1)[at - first * self.columns : at - first * self.columns + len(out)]

    def _rows(self, reader: FileReader, fills: Sequence[Fill]) -> list[npt.NDArray[Any]]:
        """Return what each fill takes; each thread keeps the matrices that it took from last, for each owner."""
        matrices = _matrices(fills)
        held = reader.latest(
            self.owner,
            (self.dtype, *(one.place for one in matrices)),
            lambda: tuple(one.whole(reader, self.dtype) for one in matrices),
        )
        return [fill.taken.of(held[matrices.index(fill.matrix)]) for fill in fills]


def _matrices(fills: Sequence[Fill]) -> list[Matrix]:
    """The matrices that fills take from, each once."""
    return list(dict.fromkeys(fill.matrix for fill in fills))


def _numpy(dtype: str) -> np.dtype[Any]:
    name = DTYPES[dtype].name
    return np.dtype(getattr(ml_dtypes, name, None) or name)
