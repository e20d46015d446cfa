"""A weight made from any element on, straight into its element type, by the help of a strip that each thread keeps."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from plait.checkpoint.dequantise.bands import Floats, floats_of
from plait.checkpoint.loops import run_loop
from plait.checkpoint.needs import made_bytes
from plait.checkpoint.types import StoredTensor
from plait.dtypes import DTYPES
from plait.ops.codec import KINDS
from plait.ops.scratch import empty, tile_scope

if TYPE_CHECKING:
    from plait.checkpoint.io import FileReader

__all__ = ["Array", "Direct", "Strip", "StripForm", "columns_of", "field_columns", "part_of", "turned", "whole"]

Array = npt.NDArray[Any]
_SPAN = 1 << 22
"""Elements that a strip is made for, as many as a thread makes of one tensor in a row."""
_SMALL = 1 << 16  # what asks for fewer is a sample: its strip has only those
_AT_ONCE = 1 << 18  # bytes
_ROWS = 32  # read at a time, at least
_LANES = 8  # words of eight bytes that are turned at a time
_EXCESS = 1 << 12  # bytes of a row that are read besides: more would take longer than another read


@dataclass(frozen=True)
class Strip:
    """What elements [low, high) of a weight are made with, besides bytes that are read as they are wanted."""

    low: int
    high: int
    arrays: tuple[Array, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays)


class StripForm(Protocol):
    """How one quantised format holds one weight; frozen and hashable."""

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """All tensors that the weight is made from, the chief one first."""
        ...

    def strip(self, reader: FileReader, start: int, span: int) -> Strip:
        """Make a strip of about `span` elements that has element `start`."""
        ...

    def strip_bytes(self, span: int) -> int:
        """Bytes of such a strip, at most."""
        ...

    def fill(self, reader: FileReader, strip: Strip, start: int, kind: int, out: Array) -> None:
        """Write the elements from `start` on, all of them the strip's, into `out` `[n]`; see `kernels` for `kind`."""
        ...


@dataclass(frozen=True, slots=True)
class Direct:
    """A weight in a quantised format: made in float32, rounded once to its element type."""

    form: StripForm
    shape: tuple[int, ...]
    dtype: str

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """All that is read to make the weight."""
        return self.form.parts

    def needs(self, count: int) -> tuple[int, int]:
        """See `plait.checkpoint.needs`."""
        strip = self.form.strip_bytes(min(_SPAN, prod(self.shape)))
        # A strip is made before the last one is let go, from parts and by numpy, whose sums have a copy or two.
        work = 2 * strip + 2 * _AT_ONCE + count + (1 << 14)
        stored = [made_bytes(part, count) for part in self.parts]
        return work + max(one for one, _ in stored), strip + sum(kept for _, kept in stored)

    def read(self, reader: FileReader, start: int, out: npt.NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes of the weight's elements from `start` on."""
        kind, view = KINDS[self.dtype]
        values = out.view(view)
        key = ("strip", *self.parts[0].key)
        span = _SPAN if len(values) >= _SMALL else max(1, len(values))
        done = 0
        while done < len(values):
            at = start + done
            strip = reader.recall(key)
            if strip is None or not strip.low <= at < strip.high:
                with tile_scope():
                    strip = self.form.strip(reader, at, span)
                reader.keep(key, strip)
            count = min(len(values) - done, strip.high - at)
            with tile_scope():
                self.form.fill(reader, strip, at, kind, values[done : done + count])
            done += count


def part_of(reader: FileReader, tensor: StoredTensor, start: int, count: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of `count` elements from `start` on, in the tile's memory."""
    raw: npt.NDArray[np.uint8] = empty((count * DTYPES[tensor.dtype].size,), np.uint8)
    reader.read_elements(tensor, start, raw)
    return raw


def whole(reader: FileReader, tensor: StoredTensor) -> Floats:
    """Return all numbers of a small tensor."""
    return floats_of(part_of(reader, tensor, 0, tensor.size), tensor.dtype)


def columns_of(
    reader: FileReader, tensor: StoredTensor, rows: tuple[int, int], columns: tuple[int, int], width: int
) -> npt.NDArray[np.uint8]:
    """Return the bytes of columns [low, high) of rows [top, bottom) of a matrix, `width` a row, in the tile's memory."""
    size = DTYPES[tensor.dtype].size
    (top, bottom), (low, high) = rows, columns
    if columns == (0, width):
        return part_of(reader, tensor, top * width, (bottom - top) * width)
    each = (high - low) * size
    out: npt.NDArray[np.uint8] = empty(((bottom - top) * each,), np.uint8)
    if tensor.strides is None and tensor.derived is None:
        offsets = tensor.offset + (np.arange(top, bottom) * width + low) * size
        reader.read_pieces(tensor.file, offsets, np.arange(bottom - top) * each, np.full(bottom - top, each), out)
        return out
    for i, row in enumerate(range(top, bottom)):
        reader.read_elements(tensor, row * width + low, out[i * each : (i + 1) * each])
    return out


def turned(
    reader: FileReader, tensor: StoredTensor, rows: tuple[int, int], columns: tuple[int, int], width: int
) -> Array:
    """Return part of a matrix of int32 or bytes, `width` a row, with rows and columns changed: `[columns, rows]`.

    Whole rows are read where they are not much more than what is wanted.
    """
    kind = np.uint32 if DTYPES[tensor.dtype].size == 4 else np.uint8
    (top, bottom), (low, high) = rows, columns
    out = np.empty((high - low, bottom - top), kind)
    wide = (0, width) if (width - high + low) * out.itemsize <= _EXCESS else columns
    step = max(_ROWS, _AT_ONCE // ((wide[1] - wide[0]) * out.itemsize) // _ROWS * _ROWS)
    for at in range(top, bottom, step):
        count = min(step, bottom - at)
        with tile_scope():
            block = columns_of(reader, tensor, (at, at + count), wide, width).view(kind).reshape(count, -1)
            _turn(block, low - wide[0], high - wide[0], at - top, out)
    return out


def _turn(block: Array, low: int, high: int, at: int, out: Array) -> None:
    """Write columns [low, high) of a block as rows of `out`, from its column `at` on."""
    if out.itemsize > 1 or any(n % 8 for n in (*block.shape, low, high, at, out.shape[1])):
        run_loop("dequantise.kernels", "turn_run", block, low, high, at, out)
        return
    eights = block.view(np.uint64), low // 8, high // 8, at // 8, empty((8, _LANES), np.uint64)
    run_loop("dequantise.kernels", "turn_bytes_run", *eights, out.view(np.uint64))


def field_columns(reader: FileReader, words: StoredTensor, bits: int, low: int, high: int) -> npt.NDArray[np.uint32]:
    """Return fields [low, high) of every row of int32 words `[n, m]`, lowest bits first: `[high - low, n]`."""
    per = 32 // bits
    first, last = low // per, -(-high // per)
    part = turned(reader, words, (0, words.shape[0]), (first, last), words.shape[1])
    shifts = np.arange(0, 32, bits, dtype=np.uint32)[:, None]
    fields = (part[:, None, :] >> shifts) & np.uint32((1 << bits) - 1)
    split: npt.NDArray[np.uint32] = fields.reshape(-1, words.shape[0])[low - first * per : high - first * per]
    return split
