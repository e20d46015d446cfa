"""A table of one row a token, seen with its rows in another tokenizer's order."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import xxhash

from plait.checkpoint.needs import made_bytes
from plait.checkpoint.types import StoredTensor
from plait.dtypes import DTYPES

if TYPE_CHECKING:
    import numpy.typing as npt

    from plait.checkpoint.io import FileReader

__all__ = ["AVERAGE", "Fill", "aligned"]

Fill = tuple[tuple[StoredTensor, int], ...]
"""What stands for a row that the model lacks: the mean of these rows; () for zeros."""
AVERAGE: Fill = ((StoredTensor("", "F32", (), "", 0), -1),)
"""The mean of all the rows that are tokens', for rows that no model has."""
_BATCH = 1 << 22  # bytes read at a time for an average


class _Rows:
    """Rows of `own` by number, and rows made of others. Equal only to itself, for what it holds is large."""

    def __init__(self, own: StoredTensor, dtype: str, numbers: npt.NDArray[np.int64], fills: tuple[Fill, ...]) -> None:
        """See `aligned`."""
        self.own, self.dtype, self.numbers, self.fills = own, dtype, numbers, fills
        others = (tensor for fill in fills if fill is not AVERAGE for tensor, _ in fill)
        self.parts = tuple(dict.fromkeys((own, *others)))
        state = xxhash.xxh3_128(np.ascontiguousarray(numbers, np.int64).data)
        for fill in fills:
            state.update(repr([(*tensor.key, number) for tensor, number in fill]).encode())
        self.mark = state.hexdigest()

    def __repr__(self) -> str:
        """Tell it from others, as a plan's fingerprint must."""
        return f"rows {self.mark} of {self.own}"

    @property
    def generated(self) -> int:
        """How many rows no model has: zeros, or the mean of all."""
        new = [-1 - place for place, fill in enumerate(self.fills) if not fill or fill is AVERAGE]
        return int(np.isin(self.numbers, new).sum())

    @property
    def width(self) -> int:
        """Elements in a row."""
        return self.own.size // max(1, self.own.shape[0])

    def needs(self, count: int) -> tuple[int, int]:
        """See `plait.checkpoint.needs`: the rows, whole, where each begins, and the mean of all."""
        row = self.width * DTYPES[self.dtype].size
        rows = count // max(1, self.width) + 2
        mean = AVERAGE in self.fills
        work = rows * (row + 64) + 16 * self.width + (2 * _BATCH + 8 * len(self.numbers)) * mean
        stored = [made_bytes(part, count) for part in self.parts]
        # Rows of another type are widened, a run of them at a time.
        widened = 0 if self.own.dtype == self.dtype else 8 * rows * self.width
        work += widened + 16 * len(self.fills) + max(one for one, _ in stored)
        return work, row * mean + sum(kept for _, kept in stored)

    def read(self, reader: FileReader, start: int, out: npt.NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes of the elements from `start` on."""
        size = DTYPES[self.dtype].size
        row = self.width * size
        if not len(out) or not row:
            return
        begin, end = start * size, start * size + len(out)
        first, last = begin // row, -(-end // row)
        whole = begin == first * row and end == last * row
        rows = out if whole else np.empty((last - first) * row, np.uint8)
        self._rows(reader, first, last, rows.reshape(last - first, row))
        if not whole:
            out[:] = rows[begin - first * row : end - first * row]

    def _rows(self, reader: FileReader, first: int, last: int, out: npt.NDArray[np.uint8]) -> None:
        """Make rows [first, last). Those that lie in a file as they are wanted are read from there in one call a file."""
        numbers = self.numbers[first:last]
        begins, ends = _runs(numbers)
        files = np.full(len(begins), -1)
        offsets = np.empty(len(begins), np.int64)
        own = numbers[begins] >= 0
        if self._as_stored(self.own):
            files[own], offsets[own] = 0, self.own.offset + numbers[begins[own]] * out.shape[1]
        files[~own], offsets[~own] = (column[-1 - numbers[begins[~own]]] for column in self._fills_in_files)
        places, lengths = begins * out.shape[1], (ends - begins) * out.shape[1]
        for which in np.unique(files).tolist():
            here = files == which
            if which >= 0:
                reader.read_pieces(self._files[which], offsets[here], places[here], lengths[here], out.reshape(-1))
                continue
            for begin, end in zip(begins[here].tolist(), ends[here].tolist(), strict=True):
                self._made(reader, int(numbers[begin]), out[begin:end])

    def _made(self, reader: FileReader, number: int, out: npt.NDArray[np.uint8]) -> None:
        """Make own rows from `number` on, or the one row that stands for one that is lacking."""
        if number < 0:
            out[0] = self._filled(reader, -1 - number)
        elif self.own.dtype == self.dtype:
            reader.read_elements(self.own, number * self.width, out.reshape(-1))
        else:
            out[:] = _bytes(_values(reader, self.own, number, len(out)), self.dtype).reshape(out.shape)

    def _as_stored(self, tensor: StoredTensor) -> bool:
        return tensor.derived is None and tensor.strides is None and tensor.dtype == self.dtype

    @cached_property
    def _files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.file for part in self.parts))

    @cached_property
    def _fills_in_files(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """For each fill: the number of the file that has the row, and where in it; -1 for one that must be made."""
        place = {file: i for i, file in enumerate(self._files)}
        found = np.full((2, len(self.fills)), -1, np.int64)
        row = self.width * DTYPES[self.dtype].size
        for i, fill in enumerate(self.fills):
            if fill is not AVERAGE and len(fill) == 1 and self._as_stored(fill[0][0]):
                found[:, i] = place[fill[0][0].file], fill[0][0].offset + fill[0][1] * row
        return found[0], found[1]

    def _filled(self, reader: FileReader, place: int) -> npt.NDArray[np.uint8]:
        fill = self.fills[place]
        if fill is AVERAGE:
            return reader.kept((self, "average"), lambda: self._average(reader))
        if len(fill) == 1 and fill[0][0].dtype == self.dtype:
            row = np.empty(self.width * DTYPES[self.dtype].size, np.uint8)
            reader.read_elements(fill[0][0], fill[0][1] * self.width, row)
            return row
        total = np.zeros(self.width, np.float64)
        for tensor, number in fill:
            total += _values(reader, tensor, number, 1)[0]
        return _bytes((total / max(1, len(fill))).astype(np.float32), self.dtype)

    def _average(self, reader: FileReader) -> npt.NDArray[np.uint8]:
        """The mean of all rows but those that it stands for."""
        padding = {-1 - place for place, fill in enumerate(self.fills) if fill is AVERAGE}
        kept = [i for i, number in enumerate(self.numbers) if int(number) not in padding]
        total = np.zeros(self.width, np.float64)
        size = DTYPES[self.dtype].size
        step = max(1, _BATCH // (self.width * size))
        for begin, end in zip(*(edges.tolist() for edges in _runs(np.array(kept, np.int64))), strict=True):
            for at in range(begin, end, step):
                count = min(end, at + step) - at
                rows = np.empty((count, self.width * size), np.uint8)
                self._rows(reader, kept[at], kept[at] + count, rows)
                total += rows.view(_numpy(self.dtype)).astype(np.float64).sum(0)
        return _bytes((total / max(1, len(kept))).astype(np.float32), self.dtype)


def aligned(own: StoredTensor, numbers: npt.NDArray[np.int64], fills: tuple[Fill, ...]) -> StoredTensor:
    """See `own`, `[rows, …]`, as a tensor with row `numbers[i]` at i, or fill `-1 - numbers[i]` where that is negative.

    Its element type is the stored one, or float32 where a fill comes from a tensor of another type: so a row that is
    another model's is that row exactly. Means are taken in float64 and rounded once. A row is read when it is asked
    for; runs of neighbours are read at once.
    """
    others = {tensor.dtype for fill in fills if fill is not AVERAGE for tensor, _ in fill} - {own.dtype}
    dtype = "F32" if others else own.dtype
    made = _Rows(own, dtype, numbers, fills)
    native = own.native or own.dtype
    shape = (len(numbers), *own.shape[1:])
    return replace(own, dtype=dtype, shape=shape, strides=None, derived=made, native=native)


def _runs(numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut into runs of numbers that follow each other; a negative number is a run of its own. Returns begins and ends.

    >>> [edge.tolist() for edge in _runs(np.array([3, 4, -2, -1, 0, 1]))]
    [[0, 2, 3, 4], [2, 3, 4, 6]]
    """
    edges = np.flatnonzero((np.diff(numbers) != 1) | (numbers[1:] <= 0)) + 1
    if not len(numbers):
        return edges, edges
    return np.r_[0, edges], np.r_[edges, len(numbers)]


def _numpy(dtype: str) -> np.dtype[Any]:
    name = DTYPES[dtype].name
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def _values(reader: FileReader, tensor: StoredTensor, number: int, count: int) -> npt.NDArray[Any]:
    """Read rows from `number` on as float32 (float64 where they are that), `[count, width]`."""
    width = tensor.size // max(1, tensor.shape[0])
    raw = np.empty(count * width * DTYPES[tensor.dtype].size, np.uint8)
    reader.read_elements(tensor, number * width, raw)
    kind = np.float64 if tensor.dtype == "F64" else np.float32
    return raw.view(_numpy(tensor.dtype)).astype(kind).reshape(count, width)


def _bytes(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(values.astype(_numpy(dtype))).view(np.uint8).reshape(-1)
