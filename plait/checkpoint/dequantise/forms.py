"""The quantised formats: how each lays out a weight, and how its elements are made.

Sources: the formats' own documents and the libraries that write them: DeepSeek-V3's weight file notes (block scales),
compressed-tensors (`pack-quantized`, `float-quantized`, `int-quantized`), AutoGPTQ and GPTQModel, AutoAWQ's GEMM layout,
the OCP Microscaling specification 1.0 (MXFP4) as GPT-OSS lays it out, bitsandbytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plait.checkpoint.dequantise.bands import Floats, floats_of
from plait.checkpoint.dequantise.strips import Array, Strip, columns_of, field_columns, part_of, turned, whole
from plait.checkpoint.loops import run_loop
from plait.checkpoint.types import StoredTensor
from plait.ops.scratch import empty

if TYPE_CHECKING:
    from plait.checkpoint.io import FileReader

__all__ = ["Awq", "Bnb4", "Gptq", "Mxfp4", "Packed", "Scaled"]

_LINE = 1040  # floats that a kernel makes at a time, in the first-level cache, and 16
_NONE: Floats = np.empty((0, 0), np.float32)


def _run(name: str, *arguments: Any) -> None:
    run_loop("dequantise.kernels", name, *arguments)


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

    def strip(self, reader: FileReader, start: int, span: int) -> Strip:  # noqa: ARG002 - one strip has all
        """Read all scales."""
        steps = -(-self.weight.shape[-1] // self.block[1])
        scales = whole(reader, self.scale).reshape(-1, steps)
        zeros = _NONE if self.zero is None else whole(reader, self.zero).reshape(-1, steps)
        return Strip(0, self.weight.size, (scales, zeros))

    def strip_bytes(self, span: int) -> int:  # noqa: ARG002 - as above
        """All scales and zeros."""
        return 4 * sum(part.size for part in self.parts[1:])

    def fill(self, reader: FileReader, strip: Strip, start: int, kind: int, out: Array) -> None:
        """Make elements from `start` on."""
        raw = part_of(reader, self.weight, start, len(out))
        form = ("F8_E4M3", "F8_E5M2", "I8").index(self.weight.dtype)
        by, line = np.array([self.by], np.float32), empty((_LINE,), np.float32)
        rows, columns = self.weight.shape[-2:]
        _run("scaled_run", raw, form, start, columns, rows, *strip.arrays, *self.block, by, line, kind, out)


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

    def strip(self, reader: FileReader, start: int, span: int) -> Strip:
        """Read the scales and zeros of some rows."""
        rows, groups = self.packed.shape[0], self.scale.size // self.packed.shape[0]
        low, high = _rows_of(start, span, self.columns, rows)
        scales = floats_of(part_of(reader, self.scale, low * groups, (high - low) * groups), self.scale.dtype)
        zeros = np.full((high - low, groups), 1 << (self.bits - 1), np.float32)
        if self.zero is not None and self.zero.dtype == "I8":
            zeros += part_of(reader, self.zero, low * groups, zeros.size).view(np.int8).reshape(zeros.shape)
        elif self.zero is not None:
            zeros[:] = self._zeros(reader, self.zero, low, high)
        index, group = _groups(reader, self.index, self.group)
        made = scales.reshape(zeros.shape), zeros, index, np.array(group)
        return Strip(low * self.columns, high * self.columns, made)

    def _zeros(self, reader: FileReader, zero: StoredTensor, low: int, high: int) -> npt.NDArray[np.uint32]:
        """Split words that lie down the rows."""
        per, groups = 32 // self.bits, zero.shape[1]
        first, last = low // per, -(-high // per)
        words = part_of(reader, zero, first * groups, (last - first) * groups).view(np.uint32).reshape(-1, 1, groups)
        shifts = np.arange(0, 32, self.bits, dtype=np.uint32)[:, None]
        fields: npt.NDArray[np.uint32] = (words >> shifts) & np.uint32((1 << self.bits) - 1)
        return fields.reshape(-1, groups)[low - first * per : high - first * per]

    def strip_bytes(self, span: int) -> int:
        """Two floats a group, and the index."""
        groups = self.scale.size // self.packed.shape[0]
        return 8 * groups * (span // self.columns + 17) + (4 * self.columns if self.index else 0)

    def fill(self, reader: FileReader, strip: Strip, start: int, kind: int, out: Array) -> None:
        """Make elements from `start` on."""
        row, words = start // self.columns, self.packed.shape[1]
        count = -(-(start + len(out)) // self.columns) - row
        raw = part_of(reader, self.packed, row * words, count * words).reshape(count, -1)
        scales, zeros, index, group = strip.arrays
        low = row - strip.low // self.columns
        here = slice(low, low + count)
        arguments = (self.columns, int(group), index, scales[here], zeros[here], empty((_LINE,), np.float32))
        _run("packed_run", raw, self.bits, start - row * self.columns, *arguments, kind, out)


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

    def strip(self, reader: FileReader, start: int, span: int) -> Strip:
        """Turn the words, scales and zeros of some rows."""
        low, high = _rows_of(start, span, self.columns, self.words.shape[1])
        words = turned(reader, self.words, (0, self.words.shape[0]), (low, high), self.words.shape[1])
        fields = field_columns(reader, self.zeros, self.bits, low, high)
        # A field that has wrapped round (zero = 0 is stored as all ones) wraps back.
        zeros = ((fields + np.uint32(self.off_by_one)) & np.uint32((1 << self.bits) - 1)).astype(np.float32)
        index, group = _groups(reader, self.index, self.group)
        scales = _scale_columns(reader, self.scales, low, high)
        return Strip(low * self.columns, high * self.columns, (words, scales, zeros, index, np.array(group)))

    def strip_bytes(self, span: int) -> int:
        """The words, two floats a group, and the index."""
        rows, groups = span // self.columns + 17, self.scales.shape[0]
        return rows * (4 * self.words.shape[0] + 8 * groups) + (4 * self.columns if self.index else 0)

    def fill(self, reader: FileReader, strip: Strip, start: int, kind: int, out: Array) -> None:  # noqa: ARG002 - all is there
        """Make elements from `start` on."""
        words, scales, zeros, index, group = strip.arrays
        arguments = (self.columns, int(group), index, scales, zeros, empty((_LINE,), np.float32))
        _run("packed_run", words.view(np.uint8), self.bits, start - strip.low, *arguments, kind, out)


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

    def strip(self, reader: FileReader, start: int, span: int) -> Strip:
        """Turn the words, scales and zeros of some rows."""
        columns, outputs = self.words.shape[0], self.scales.shape[1]
        low, high = _rows_of(start, span, columns, outputs)
        words = turned(reader, self.words, (0, columns), (low // 8, -(-high // 8)), outputs // 8)
        groups = self.scales.shape[0]
        fields = field_columns(reader, self.zeros, 4, low, high).reshape(-1, 8, groups)
        zeros = fields[:, [0, 4, 1, 5, 2, 6, 3, 7]].reshape(-1, groups).astype(np.float32)
        return Strip(low * columns, high * columns, (words, _scale_columns(reader, self.scales, low, high), zeros))

    def strip_bytes(self, span: int) -> int:
        """The words, and two floats a group."""
        columns, groups = self.words.shape[0], self.scales.shape[0]
        return (span // columns + 17) * (columns // 2 + 8 * groups)

    def fill(self, reader: FileReader, strip: Strip, start: int, kind: int, out: Array) -> None:  # noqa: ARG002 - all is there
        """Make elements from `start` on."""
        words, scales, zeros = strip.arrays
        line = empty((_LINE,), np.float32)
        _run("interleaved_run", words, start - strip.low, self.group, scales, zeros, line, kind, out)


@dataclass(frozen=True, slots=True)
class Mxfp4:
    """MXFP4 as GPT-OSS has its experts: `[experts, out, groups, 16]` bytes for a parameter `[experts, in, out]`."""

    blocks: StoredTensor
    scales: StoredTensor

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The codes and the exponents."""
        return self.blocks, self.scales

    def strip(self, reader: FileReader, start: int, span: int) -> Strip:
        """Turn the codes and exponents of some inputs of one expert."""
        _, outputs, groups, _ = self.blocks.shape
        expert, at = divmod(start, groups * 32 * outputs)
        low = at // (32 * outputs)
        high = min(groups, low + 1 + -(-span // (32 * outputs)))
        rows = expert * outputs, (expert + 1) * outputs
        codes = turned(reader, self.blocks, rows, (16 * low, 16 * high), 16 * groups)
        powers = turned(reader, self.scales, rows, (low, high), groups)
        begin = expert * groups * 32 * outputs
        return Strip(begin + low * 32 * outputs, begin + high * 32 * outputs, (codes, powers))

    def strip_bytes(self, span: int) -> int:
        """The codes and the exponents."""
        _, outputs, groups, _ = self.blocks.shape
        return 17 * outputs * min(groups, 1 + -(-span // (32 * outputs)))

    def fill(self, reader: FileReader, strip: Strip, start: int, kind: int, out: Array) -> None:  # noqa: ARG002 - all is there
        """Make elements from `start` on."""
        _run("mxfp4_run", *strip.arrays, start - strip.low, empty((_LINE,), np.float32), kind, out)


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

    def strip(self, reader: FileReader, start: int, span: int) -> Strip:
        """Work out the scales of some blocks, and what two numbers a byte stands for."""
        first = start // self.block
        last = min(self.scale.size, -(-(start + span) // self.block))
        table = whole(reader, self.table).reshape(-1)
        pairs = np.stack([np.repeat(table, 16), np.tile(table, 16)], 1).reshape(-1).view(np.uint64)
        return Strip(first * self.block, last * self.block, (pairs, self._scales(reader, first, last)))

    def _scales(self, reader: FileReader, first: int, last: int) -> Floats:
        stored = part_of(reader, self.scale, first, last - first)
        if self.nested_scale is None or self.nested_table is None:
            return floats_of(stored, self.scale.dtype)
        nested = whole(reader, self.nested_scale).reshape(-1)[np.arange(first, last) // self.nested_block]
        made: Floats = whole(reader, self.nested_table).reshape(-1)[stored] * nested + np.float32(self.nested_offset)
        return made

    def strip_bytes(self, span: int) -> int:
        """A float a block, and the pairs."""
        return 4 * (span // self.block + 2) + 2048

    def fill(self, reader: FileReader, strip: Strip, start: int, kind: int, out: Array) -> None:
        """Make elements from `start` on."""
        first = start // 2
        raw = empty(((start + len(out) + 1) // 2 - first,), np.uint8)
        reader.read_into(self.codes.file, self.codes.offset + first, raw)  # whatever element type holds the bytes
        pairs, scales = strip.arrays
        line = empty((_LINE,), np.float32)
        _run("look_up_run", raw, start - strip.low, pairs, scales, self.block, line, line.view(np.uint64), kind, out)


def _rows_of(start: int, span: int, columns: int, rows: int) -> tuple[int, int]:
    """Return which rows a strip has: `span` elements from `start` on and what begins its first row; eights, for words."""
    low = start // columns // 8 * 8
    return low, min(rows, -(-(start + span) // columns // 8) * 8 if span >= columns else low + 8)


def _groups(reader: FileReader, index: StoredTensor | None, group: int) -> tuple[npt.NDArray[np.int32], int]:
    """Return the group of every column and 0, or nothing and how many columns that follow each other have one."""
    if index is not None:
        found = part_of(reader, index, 0, index.size).view(np.int32)
        if not (found < 0).any() and not np.array_equal(found, np.arange(len(found)) // group):
            return found.copy(), 0
    return np.empty(0, np.int32), group


def _scale_columns(reader: FileReader, scales: StoredTensor, low: int, high: int) -> Floats:
    """Return columns [low, high) of scales `[groups, n]` as rows of floats."""
    groups, width = scales.shape
    raw = columns_of(reader, scales, (0, groups), (low, high), width)
    return np.ascontiguousarray(floats_of(raw, scales.dtype).reshape(groups, -1).T)
