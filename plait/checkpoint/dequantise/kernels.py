"""Quantised numbers to floats, rounded once to the weight's element type: one pass over raw bytes, a line of a row at a time.

Rows are rows of the weight, `[out, in]` as torch's Linear has it. A kernel writes `out`, which is bfloat16's or float16's
bits or float32 (`kind` 0, 1, 2), from element `first` of its rows on; `line` is room for the floats of a piece of a row.
Compiled by Numba, see `plait.checkpoint.loops`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from plait.ops.on_cpu.codec import decode_e4m3, decode_e5m2, encode_bf16, encode_f16, encode_float
from plait.ops.on_cpu.jit import float_of, kernel

__all__ = [
    "interleaved_run",
    "look_up_run",
    "mxfp4_run",
    "packed_run",
    "scaled_run",
    "turn_bytes_run",
    "turn_run",
]

_SIDE = 16  # of the square that is turned at a time: a cache line of words
_SLACK = 16  # of a line: a piece may begin within a byte
f32 = np.float32
u32 = np.uint32
u64 = np.uint64


@kernel
def _put(line: Any, kind: int, out: Any) -> None:
    if kind == 0:
        encode_bf16(line, None, out)
    elif kind == 1:
        encode_f16(line, None, out)
    else:
        encode_float(line, None, out)


@kernel
def _scale(line: Any, zero: Any, scale: Any) -> None:
    for j in range(len(line)):
        line[j] = (line[j] - zero) * scale


@kernel
def _scale_twice(line: Any, zero: Any, scale: Any, by: Any) -> None:
    for j in range(len(line)):
        line[j] = (line[j] - zero) * scale * by


@kernel
def _multiply(line: Any, scale: Any) -> None:
    for j in range(len(line)):
        line[j] = line[j] * scale


@kernel
def _of_bytes(raw: Any, line: Any) -> None:
    for j in range(len(raw)):
        line[j] = f32(raw[j])


@kernel
def _of_signed(raw: Any, line: Any) -> None:
    for j in range(len(raw)):
        line[j] = f32(np.int8(raw[j]))


@kernel
def _of_fields(raw: Any, bits: int, line: Any) -> None:
    """Split bytes into fields, lowest bits first."""
    if bits == 4:
        for b in range(len(raw)):
            line[2 * b] = f32(u32(raw[b]) & u32(15))
            line[2 * b + 1] = f32(u32(raw[b]) >> u32(4))
    elif bits == 8:
        _of_bytes(raw, line)
    else:
        for b in range(len(raw)):
            for k in range(4):
                line[4 * b + k] = f32((u32(raw[b]) >> u32(2 * k)) & u32(3))


@kernel
def scaled_run(
    codes: Any,
    form: int,
    first: int,
    columns: int,
    rows: int,
    scales: Any,
    zeros: Any,
    block_rows: int,
    block_columns: int,
    by: Any,
    line: Any,
    kind: int,
    out: Any,
) -> Any:
    """Make (q - zero) · scale · by of `codes` `[n]`, bytes: F8_E4M3, F8_E5M2 or I8 (`form` 0, 1, 2).

    Their first is element `first` of all matrices, of `rows` each; `scales` and `zeros` (empty for none) are
    `[matrices · ceil(rows / block_rows), ceil(columns / block_columns)]`.
    """
    steps = -(-rows // block_rows)
    done = 0
    while done < out.size:
        row, column = divmod(first + done, columns)
        count = min(columns - column, out.size - done, line.size - _SLACK)
        part = line[:count]
        if form == 0:
            decode_e4m3(codes[done : done + count], None, part)
        elif form == 1:
            decode_e5m2(codes[done : done + count], None, part)
        else:
            _of_signed(codes[done : done + count], part)
        s = row // rows * steps + row % rows // block_rows
        j = 0
        while j < count:
            b = (column + j) // block_columns
            end = min(count, (b + 1) * block_columns - column)
            zero = zeros[s, b] if zeros.size else f32(0)
            _scale_twice(part[j:end], zero, scales[s, b], by[0])
            j = end
        _put(part, kind, out[done : done + count])
        done += count
    return done


@kernel
def _by_group(line: Any, column: int, group: int, index: Any, scales: Any, zeros: Any) -> None:
    """Make (q - zero) · scale of part of a row from `column` on, given the numbers of the row's groups.

    A group has `group` columns that follow each other, or, where that is 0, those that `index` says.
    """
    if not group:
        for j in range(len(line)):
            g = index[column + j]
            line[j] = (line[j] - zeros[g]) * scales[g]
        return
    j = 0
    while j < len(line):
        g = (column + j) // group
        end = min(len(line), (g + 1) * group - column)
        _scale(line[j:end], zeros[g], scales[g])
        j = end


@kernel
def packed_run(
    raw: Any,
    bits: int,
    first: int,
    columns: int,
    group: int,
    index: Any,
    scales: Any,
    zeros: Any,
    line: Any,
    kind: int,
    out: Any,
) -> Any:
    """Make rows of 2-, 4- or 8-bit fields, lowest bits first: (q - zero) · scale.

    `raw` is `[rows, bytes]`, `scales` and `zeros` `[rows, groups]`; `group` and `index`: see `_by_group`.
    """
    per = 8 // bits
    done = 0
    while done < out.size:
        row, column = divmod(first + done, columns)
        count = min(columns - column, out.size - done, line.size - _SLACK)
        low, high = column * bits >> 3, (column + count) * bits + 7 >> 3
        _of_fields(raw[row, low:high], bits, line)
        part = line[column % per : column % per + count]
        _by_group(part, column, group, index, scales[row], zeros[row])
        _put(part, kind, out[done : done + count])
        done += count
    return done


def _shift(_typing: Any, _word: Any, _by: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.lshr(*arguments)

    return types.uint32(types.uint32, types.uint32), generate


# Shift a uint32 to the right: Numba's own shift would be one of 64 bits, in half as many lanes.
_shifted: Any = intrinsic(_shift)


@kernel
def _of_words(words: Any, shift: Any, line: Any) -> None:
    for j in range(len(line)):
        line[j] = f32(u32(_shifted(u32(words[j]), u32(shift)) & u32(15)))


@kernel
def interleaved_run(words: Any, first: int, group: int, scales: Any, zeros: Any, line: Any, kind: int, out: Any) -> Any:
    """Make rows of AWQ's words turned, `[rows / 8, columns]`, each of eight: (q - zero) · scale, both `[rows, groups]`.

    Of the eight rows of a word the even ones come first: 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits up.
    """
    columns = words.shape[1]
    done = 0
    while done < out.size:
        row, column = divmod(first + done, columns)
        count = min(columns - column, out.size - done, line.size - _SLACK)
        part = line[:count]
        shift = u32(4 * (((row & 7) >> 1) + 4 * (row & 1)))
        _of_words(words[row >> 3, column : column + count], shift, part)
        j = 0
        while j < count:
            g = (column + j) // group
            end = min(count, (g + 1) * group - column)
            _scale(part[j:end], zeros[row, g], scales[row, g])
            j = end
        _put(part, kind, out[done : done + count])
        done += count
    return done


@kernel
def _of_e2m1(codes: Any, powers: Any, shift: Any, line: Any) -> None:
    """Make 2^(power - 127) times the number of a code (OCP Microscaling 1.0, table 5): sign, two bits of exponent, one more."""
    for j in range(len(line)):
        code = _shifted(u32(codes[j]), u32(shift))
        size = u32(code & u32(7))
        bits = u32(u32(size << u32(22)) + u32(126 << 23))
        bits = u32(126 << 23) if size == u32(1) else bits
        bits = u32(0) if size == u32(0) else bits
        power = u32(u32(powers[j]) << u32(23))
        power = u32(1 << 22) if power == u32(0) else power
        line[j] = float_of(u32(bits | u32(u32(code & u32(8)) << u32(28)))) * float_of(power)


@kernel
def mxfp4_run(codes: Any, powers: Any, first: int, line: Any, kind: int, out: Any) -> Any:
    """Make rows of MXFP4 turned: `codes` `[rows / 2, columns]`, each of two rows, low first; `powers` `[rows / 32, columns]`."""
    columns = codes.shape[1]
    done = 0
    while done < out.size:
        row, column = divmod(first + done, columns)
        count = min(columns - column, out.size - done, line.size - _SLACK)
        end = column + count
        part = line[:count]
        _of_e2m1(codes[row >> 1, column:end], powers[row >> 5, column:end], u32(4 * (row & 1)), part)
        _put(part, kind, out[done : done + count])
        done += count
    return done


@kernel
def _of_pairs(raw: Any, pairs: Any, line: Any) -> None:
    for b in range(len(raw)):
        line[b] = pairs[raw[b]]


@kernel
def look_up_run(
    raw: Any, first: int, pairs: Any, scales: Any, block: int, line: Any, twos: Any, kind: int, out: Any
) -> Any:
    """Look up flat 4-bit codes, high half of a byte first (bitsandbytes): the code's number · scales[element // block].

    `raw` begins with the byte that has element `first`, `scales` with that of element 0; `pairs` `[256]` has for every
    byte the two float32 as one uint64, and `twos` is `line` seen so.
    """
    done = 0
    while done < out.size:
        at = first + done
        lead, low = at & 1, (first & 1) + done >> 1
        count = min(out.size - done, line.size - _SLACK)
        _of_pairs(raw[low : low + ((lead + count + 1) >> 1)], pairs, twos)
        part = line[lead : lead + count]
        j = 0
        while j < count:
            b = (at + j) // block
            end = min(count, (b + 1) * block - at)
            _multiply(part[j:end], scales[b])
            j = end
        _put(part, kind, out[done : done + count])
        done += count
    return done


@kernel
def turn_run(source: Any, low: int, high: int, at: int, out: Any) -> Any:
    """Write columns [low, high) of `source` `[n, width]` as rows of `out` `[high - low, …]`, from column `at` on.

    Square by square, so that neither side is gone through in long strides.
    """
    for top in range(0, source.shape[0], _SIDE):
        height = min(_SIDE, source.shape[0] - top)
        for left in range(low, high, _SIDE):
            for column in range(left, min(left + _SIDE, high)):
                line = out[column - low, at + top : at + top + height]
                for i in range(height):
                    line[i] = source[top + i, column]
    return np.int64(0)


@kernel
def _swap(first: Any, second: Any, by: Any, mask: Any) -> None:
    """Exchange some bytes of two words in every lane: those above `by` bits of the first for those below of the second."""
    for j in range(len(first)):
        both = u64(u64(u64(first[j] >> by) ^ second[j]) & mask)
        first[j] = u64(first[j] ^ u64(both << by))
        second[j] = u64(second[j] ^ both)


@kernel
def turn_bytes_run(source: Any, low: int, high: int, at: int, room: Any, out: Any) -> Any:
    """As `turn_run`, for bytes, eight of which are a word of `source` and `out`, as all numbers count: squares of 8 by 8.

    `room` is `[8, lanes]`, for the squares that are turned at a time (Warren, Hacker's Delight, 7-3).
    """
    lanes = room.shape[1]
    for left in range(low, high, lanes):
        count = min(lanes, high - left)
        for top in range(0, source.shape[0], 8):
            for i in range(8):
                line = source[top + i, left : left + count]
                for j in range(count):
                    room[i, j] = line[j]
            for i in range(4):
                _swap(room[i], room[i + 4], u64(32), u64(0x00000000FFFFFFFF))
            for i in range(0, 8, 4):
                _swap(room[i], room[i + 2], u64(16), u64(0x0000FFFF0000FFFF))
                _swap(room[i + 1], room[i + 3], u64(16), u64(0x0000FFFF0000FFFF))
            for i in range(0, 8, 2):
                _swap(room[i], room[i + 1], u64(8), u64(0x00FF00FF00FF00FF))
            for j in range(count):
                for i in range(8):
                    out[8 * (left - low + j) + i, at + (top >> 3)] = room[i, j]
    return np.int64(0)
