"""The quantised formats: how each lays out a weight, and how a band of its rows is made.

Sources: the formats' own documents and the libraries that write them: DeepSeek-V3's weight file notes (block scales),
compressed-tensors (`pack-quantized`, `float-quantized`, `int-quantized`), AutoGPTQ and GPTQModel, AutoAWQ's GEMM layout,
the OCP Microscaling specification 1.0 (MXFP4) as GPT-OSS lays it out, bitsandbytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plait.checkpoint.dequantise.bands import KEPT, Floats, numbers, powers_of_two, raw_of
from plait.checkpoint.types import StoredTensor

if TYPE_CHECKING:
    from plait.checkpoint.io import FileReader

__all__ = ["E2M1", "Awq", "Bnb4", "Gptq", "Mxfp4", "Packed", "Scaled"]

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""The numbers of MXFP4's codes (OCP Microscaling 1.0, table 5)."""
_BAND = 1 << 17
# Formats that hold the transpose are read in strips, one short piece of every row: wider bands make longer pieces.
_WIDE = 1 << 20
_STRIP = 1 << 23  # bytes
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Scaled:
    """(q - zero) · scale · by, with one scale for each block of a matrix: FP8, int8, bitsandbytes int8."""

    weight: StoredTensor
    """F8_E4M3, F8_E5M2 or I8; `[rows, columns]` or `[experts, rows, columns]`."""
    scale: StoredTensor
    block: tuple[int, int]
    """Rows and columns that share a scale."""
    zero: StoredTensor | None = None
    by: float = 1.0

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The weight, its scales, its zeros."""
        return (self.weight, self.scale) if self.zero is None else (self.weight, self.scale, self.zero)

    @property
    def band(self) -> int:
        """About how many elements to make at once."""
        return _BAND

    def rows(self, reader: FileReader, low: int, out: Floats) -> None:
        """Make rows from `low` on."""
        from plait.checkpoint.dequantise.kernels import scale_blocks
        from plait.ops.codec import decode

        rows, columns = self.weight.shape[-2:]
        raw = raw_of(reader, self.weight, low * columns, out.size)
        if self.weight.dtype == "I8":
            out[:] = raw.view(np.int8).reshape(out.shape)
        else:
            decode(raw, self.weight.dtype, out.reshape(-1))
        steps = -(-columns // self.block[1])
        scales = numbers(reader, self.scale).reshape(-1, steps)
        zeros = None if self.zero is None else numbers(reader, self.zero).reshape(-1, steps)
        scale_blocks(out, low, scales, zeros, rows, *self.block, np.float32(self.by))


@dataclass(frozen=True, slots=True)
class Packed:
    """compressed-tensors' `pack-quantized`: rows of 4- or 8-bit fields in int32 words, scales for groups of columns."""

    packed: StoredTensor
    scale: StoredTensor
    columns: int
    bits: int
    group: int
    zero: StoredTensor | None = None
    """Packed as the weight is, but down the rows; or I8, one for each scale."""
    index: StoredTensor | None = None
    """The group of every column; all -1 for columns in order."""
    shape: StoredTensor | None = None

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The words and all beside them."""
        found = (self.packed, self.scale, self.zero, self.index, self.shape)
        return tuple(part for part in found if part is not None)

    @property
    def band(self) -> int:
        """About how many elements to make at once."""
        return _BAND

    def rows(self, reader: FileReader, low: int, out: Floats) -> None:
        """Make rows from `low` on."""
        from plait.checkpoint.dequantise.kernels import unpack_groups

        high, words = low + len(out), self.packed.shape[1]
        raw = raw_of(reader, self.packed, low * words, len(out) * words).reshape(len(out), -1)
        scales = numbers(reader, self.scale).reshape(self.packed.shape[0], -1)
        zeros = np.full(scales[low:high].shape, 1 << (self.bits - 1), np.float32)
        if self.zero is not None and self.zero.dtype == "I8":
            zeros += numbers(reader, self.zero).reshape(scales.shape)[low:high]
        elif self.zero is not None:
            fields = raw_of(reader, self.zero, 0, self.zero.size).view(np.uint32).reshape(self.zero.shape)
            zeros = _fields(fields.T, self.bits)[:, low:high].T.astype(np.float32)
        group = _groups(reader, self.index, self.columns, self.group)
        unpack_groups(raw, self.bits, scales[low:high], np.ascontiguousarray(zeros), group, out)


@dataclass(frozen=True, slots=True)
class Gptq:
    """GPTQ: the transpose, 2-, 4- or 8-bit fields of int32 words down the columns; the first format stores zero - 1."""

    words: StoredTensor
    zeros: StoredTensor
    scales: StoredTensor
    bits: int
    group: int
    columns: int
    index: StoredTensor | None = None
    off_by_one: bool = True

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The words, zeros, scales and groups."""
        found = (self.words, self.zeros, self.scales, self.index)
        return tuple(part for part in found if part is not None)

    @property
    def band(self) -> int:
        """About how many elements to make at once."""
        return _WIDE

    def rows(self, reader: FileReader, low: int, out: Floats) -> None:
        """Make rows from `low` on."""
        from plait.checkpoint.dequantise.kernels import unpack_columns

        high = low + len(out)
        words = _strip(reader, self.words, low, high)
        packed = raw_of(reader, self.zeros, 0, self.zeros.size).view(np.uint32).reshape(self.zeros.shape)
        # A field that has wrapped round (zero = 0 is stored as all ones) wraps back.
        zeros = (_fields(packed, self.bits)[:, low:high] + self.off_by_one) & ((1 << self.bits) - 1)
        scales = numbers(reader, self.scales)[:, low:high]
        group = _groups(reader, self.index, self.columns, self.group)
        unpack_columns(words, self.bits, scales, zeros.astype(np.float32), group, out)


@dataclass(frozen=True, slots=True)
class Awq:
    """AWQ's GEMM layout: the transpose, 4-bit fields of int32 words along the rows, even ones first."""

    words: StoredTensor
    zeros: StoredTensor
    scales: StoredTensor
    group: int

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The words, zeros and scales."""
        return self.words, self.zeros, self.scales

    @property
    def band(self) -> int:
        """About how many elements to make at once."""
        return _WIDE

    def rows(self, reader: FileReader, low: int, out: Floats) -> None:
        """Make rows from `low` on."""
        from plait.checkpoint.dequantise.kernels import unpack_interleaved

        high, begin = low + len(out), low // 8 * 8
        words = _strip(reader, self.words, begin // 8, -(-high // 8))
        packed = raw_of(reader, self.zeros, 0, self.zeros.size).view(np.uint32).reshape(self.zeros.shape)
        fields = _fields(packed, 4).reshape(len(packed), -1, 8)[:, :, [0, 4, 1, 5, 2, 6, 3, 7]]
        zeros = fields.reshape(len(packed), -1)[:, begin:high].astype(np.float32)
        scales = numbers(reader, self.scales)[:, begin:high]
        group = _groups(reader, None, self.words.shape[0], self.group)
        whole = out if begin == low else np.empty((high - begin, out.shape[1]), np.float32)
        unpack_interleaved(words, scales, zeros, group, whole)
        if whole is not out:
            out[:] = whole[low - begin :]


@dataclass(frozen=True, slots=True)
class Mxfp4:
    """MXFP4 as GPT-OSS has its experts: `[experts, out, groups, 16]` bytes for a parameter `[experts, in, out]`."""

    blocks: StoredTensor
    scales: StoredTensor

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The codes and the exponents."""
        return self.blocks, self.scales

    @property
    def band(self) -> int:
        """About how many elements to make at once."""
        return _WIDE

    def rows(self, reader: FileReader, low: int, out: Floats) -> None:
        """Make rows from `low` on, which count the inputs of all experts."""
        from plait.checkpoint.dequantise.kernels import unpack_mxfp4

        _, outputs, groups, _ = self.blocks.shape
        inputs, done = groups * 32, 0
        values = np.array(E2M1, np.float32)
        while done < len(out):
            expert, at = divmod(low + done, inputs)
            count = min(len(out) - done, inputs - at)
            blocks = reader.kept((self.blocks, expert), partial(self._expert, reader, expert), most=KEPT)
            raw = raw_of(reader, self.scales, expert * outputs * groups, outputs * groups)
            powers = powers_of_two(raw).reshape(outputs, groups)
            unpack_mxfp4(blocks, powers, at, values, out[done : done + count])
            done += count

    def _expert(self, reader: FileReader, expert: int) -> Array:
        shape = self.blocks.shape[1:]
        return raw_of(reader, self.blocks, expert * prod(shape), prod(shape)).reshape(shape)


@dataclass(frozen=True, slots=True)
class Bnb4:
    """bitsandbytes nf4 and fp4: flat 4-bit codes into a table of 16 numbers, one scale a block, itself in 8 bits or not."""

    codes: StoredTensor
    scale: StoredTensor
    table: StoredTensor
    block: int
    state: StoredTensor
    nested_scale: StoredTensor | None = None
    nested_table: StoredTensor | None = None
    nested_block: int = 0
    nested_offset: float = 0.0

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The codes, tables and scales."""
        found = (self.codes, self.scale, self.table, self.nested_scale, self.nested_table, self.state)
        return tuple(part for part in found if part is not None)

    @property
    def band(self) -> int:
        """About how many elements to make at once."""
        return _BAND

    def rows(self, reader: FileReader, low: int, out: Floats) -> None:
        """Make rows from `low` on."""
        from plait.checkpoint.dequantise.kernels import look_up

        start = low * out.shape[1]
        first, last = start // 2, (start + out.size + 1) // 2
        raw = np.empty(last - first, np.uint8)
        reader.read_into(self.codes.file, self.codes.offset + first, raw)  # whatever element type holds the bytes
        scales = reader.kept((self, "scales"), lambda: self._scales(reader), most=KEPT)
        look_up(raw, start % 2, start, numbers(reader, self.table), scales, self.block, out.reshape(-1))

    def _scales(self, reader: FileReader) -> Floats:
        if self.nested_scale is None or self.nested_table is None:
            return numbers(reader, self.scale).reshape(-1)
        codes = raw_of(reader, self.scale, 0, self.scale.size)
        nested = numbers(reader, self.nested_scale).reshape(-1)
        values = numbers(reader, self.nested_table)[codes] * np.repeat(nested, self.nested_block)[: len(codes)]
        made: Floats = values + np.float32(self.nested_offset)
        return made


def _fields(words: Array, bits: int) -> npt.NDArray[np.int32]:
    """Split the words of `[n, m]` into `[n, m · 32 / bits]` fields, lowest bits first."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    fields = (words[:, :, None] >> shifts) & np.uint32((1 << bits) - 1)
    split: npt.NDArray[np.int32] = fields.astype(np.int32).reshape(len(words), -1)
    return split


def _groups(reader: FileReader, index: StoredTensor | None, columns: int, group: int) -> npt.NDArray[np.int32]:
    """Return the group of every column."""
    if index is not None:
        found: npt.NDArray[np.int32] = raw_of(reader, index, 0, index.size).view(np.int32)
        if not (found < 0).any():
            return found
    return (np.arange(columns) // group).astype(np.int32)


def _strip(reader: FileReader, words: StoredTensor, low: int, high: int) -> npt.NDArray[np.uint32]:
    """Cut columns [low, high) out of a matrix of int32 words, of which wider strips are read and kept."""
    rows, columns = words.shape
    width = min(columns, max(1, _STRIP // max(1, 4 * rows)))
    out = np.empty((rows, high - low), np.uint32)
    for which in range(low // width, -(-high // width)):
        first, last = which * width, min((which + 1) * width, columns)
        wide = reader.kept((words, "strip", which), partial(_read_strip, reader, words, first, last), most=KEPT)
        begin, end = max(low, first), min(high, last)
        out[:, begin - low : end - low] = wide[:, begin - first : end - first]
    return out


def _read_strip(reader: FileReader, words: StoredTensor, low: int, high: int) -> npt.NDArray[np.uint32]:
    rows, columns = words.shape
    if (low, high) == (0, columns):
        return raw_of(reader, words, 0, words.size).view(np.uint32).reshape(rows, columns)
    out = np.empty((rows, high - low), np.uint32)
    for row in range(rows):
        reader.read_elements(words, row * columns + low, out[row].view(np.uint8))
    return out
