"""Kernels and wrappers of plait.ops.last_axis: sums in a fixed order, and sorting by the bits of magnitudes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from plait.ops.on_cpu.blocks import BLOCK, LANES, dot, plain_sum
from plait.ops.on_cpu.exponential import exp_of
from plait.ops.on_cpu.jit import bits_of, kernel
from plait.ops.on_cpu.shapes import Array, flat_of, like
from plait.ops.scratch import empty

__all__ = ["keep_of_each", "ranks", "room_to_sort", "row_norm", "row_sum", "softmax_sums", "write_ranks"]

f32, f64, i32, i64, u16, u32 = np.float32, np.float64, np.int32, np.int64, np.uint16, np.uint32


def _lines(x: Array) -> Array:
    """Return x as `[rows, columns]`, C-contiguous."""
    if x.ndim == 0:
        raise ValueError("a row has an axis: an array without dimensions has no rows")
    return flat_of(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])


@kernel
def _row_sums(x: Any, ones: Any, lanes: Any, out: Any) -> None:
    """`[rows, columns]`, `[BLOCK]` ones, `[LANES]` room -> `[rows]`."""
    for row in range(out.size):
        total = 0.0
        for low in range(0, x.shape[1], BLOCK):
            part = x[row, low : low + BLOCK]
            total += dot(part, ones[: part.size], lanes)
        out[row] = total


@kernel
def _row_norms(x: Any, lanes: Any, out: Any) -> None:
    """`[rows, columns]`, `[LANES]` room -> `[rows]`."""
    for row in range(out.size):
        total = 0.0
        for low in range(0, x.shape[1], BLOCK):
            part = x[row, low : low + BLOCK]
            total += dot(part, part, lanes)
        out[row] = np.sqrt(total)


def row_sum(x: Array) -> Array:
    """See plait.ops.row_sum."""
    lines, out = _lines(x), like((*x.shape[:-1], 1), x)
    _row_sums(lines, np.ones(BLOCK, x.dtype), np.empty(LANES), out.reshape(-1))
    return out


def row_norm(x: Array) -> Array:
    """See plait.ops.row_norm."""
    lines, out = _lines(x), like((*x.shape[:-1], 1), x)
    _row_norms(lines, np.empty(LANES), out.reshape(-1))
    return out


@kernel
def _exponentials(x: Any, top: float, out: Any) -> None:
    for j in range(x.size):
        out[j] = exp_of(f64(x[j]) - top)


@kernel
def _softmax_sums(x: Any, y: Any, room: Any, lanes: Any, top: Any, total: Any) -> None:
    """`[rows, columns]` twice, float64 room `[3, BLOCK]` and `[LANES]`, greatest entries `[rows, 2]` -> `[rows, 3]`."""
    first, second, difference = room[0], room[1], room[2]
    for row in range(x.shape[0]):
        a, b, most, other = x[row], y[row], top[row, 0], top[row, 1]
        total[row, 0] = total[row, 1] = total[row, 2] = 0.0
        for low in range(0, a.size, BLOCK):
            size = min(BLOCK, a.size - low)
            _exponentials(a[low : low + size], most, first)
            _exponentials(b[low : low + size], other, second)
            for j in range(size):
                difference[j] = np.float64(a[low + j]) - np.float64(b[low + j])
            total[row, 0] += plain_sum(first[:size], lanes)
            total[row, 1] += plain_sum(second[:size], lanes)
            total[row, 2] += dot(first[:size], difference[:size], lanes)


def softmax_sums(x: Array, y: Array) -> tuple[Array, Array]:
    """Return each row's greatest entries, and Σ e^x, Σ e^y and Σ e^x (x - y), with these taken from x and y in exponents."""
    lines, others = _lines(x), _lines(y)
    if lines.shape != others.shape or lines.dtype != others.dtype or lines.shape[1] == 0:
        raise ValueError(f"rows of one length and type are compared, not {list(x.shape)} and {list(y.shape)}")
    top = np.stack([lines.max(axis=1), others.max(axis=1)], axis=1).astype(np.float64)
    total = empty((len(lines), 3), np.float64)
    _softmax_sums(lines, others, empty((3, BLOCK), np.float64), empty((LANES,), np.float64), top, total)
    return top.reshape(*x.shape[:-1], 2), total.reshape(*x.shape[:-1], 3)


@kernel
def _place(x: Any, mask: Any, width: Any, counts: Any) -> None:
    """Make of `counts` `[digits, values]` where, for each digit, the keys with each of its values begin."""
    last = (1 << width) - 1
    counts[:] = 0
    for j in range(x.size):
        key = x[j] & mask
        for digit in range(counts.shape[0]):
            counts[digit, i64((key >> (digit * width)) & last)] += 1
    for digit in range(counts.shape[0]):
        total = 0
        for value in range(last + 1):
            count = counts[digit, value]
            counts[digit, value] = total
            total += count


@kernel
def write_ranks(bits: Any, mask: Any, width: Any, counts: Any, keys: Any, places: Any, out: Any) -> None:
    """Sort each row by its magnitude bits, from the lowest digit of `width` bits to the highest; stable.

    `[rows, n]`, room `[digits, 2^width]`, `[2, n]`, `[2, n]` -> `[rows, n]`. There are at least two digits: the first
    round reads the row itself, the last writes ranks where it would place entries.
    """
    last, final = (1 << width) - 1, counts.shape[0] - 1
    for row in range(bits.shape[0]):
        x, rank = bits[row], out[row]
        _place(x, mask, width, counts)
        at = counts[0]
        for j in range(x.size):
            key = x[j] & mask
            value = i64(key & last)
            place = at[value]
            at[value] = place + 1
            keys[0, place] = key
            places[0, place] = j
        for digit in range(1, final):
            at, shift, to = counts[digit], digit * width, digit & 1
            for j in range(x.size):
                key = keys[1 - to, j]
                value = i64((key >> shift) & last)
                place = at[value]
                at[value] = place + 1
                keys[to, place] = key
                places[to, place] = places[1 - to, j]
        at, shift, source = counts[final], final * width, (final - 1) & 1
        for j in range(x.size):
            value = i64((keys[source, j] >> shift) & last)
            place = at[value]
            at[value] = place + 1
            rank[places[source, j]] = place


def room_to_sort(columns: int, kind: type[np.unsignedinteger[Any]]) -> tuple[int, Array, Array, Array]:
    """Return what `write_ranks` takes to sort rows of so many keys of a kind: the digits' width, and room."""
    size = 8 * np.dtype(kind).itemsize - 1
    width = 4 if columns < 64 else 8 if columns < 1024 else 11  # clearing the counters should not outweigh the rest
    counts = empty((-(-size // width), 1 << width), np.int64)
    return width, counts, empty((2, columns), kind), empty((2, columns), np.int64)


def ranks(x: Array) -> Array:
    """See plait.ops.ranks."""
    lines, out = _lines(x), like(x.shape, x)
    columns = lines.shape[1]
    if lines.size == 0:
        return out
    kind = np.dtype(f"u{x.itemsize}").type
    size = 8 * x.itemsize - 1
    write_ranks(lines.view(kind), kind((1 << size) - 1), *room_to_sort(columns, kind), out.reshape(lines.shape))
    return out


@kernel
def _reached_by(keys: Any, n: int) -> Any:
    """The greatest number that at least n of the keys reach; by halving, as that needs no order."""
    low, high = keys.dtype.type(0), keys.max()
    while low < high:
        middle = low + ((high - low + 1) >> 1)
        count = 0
        for j in range(keys.size):
            count += keys[j] >= middle
        if count == n:
            return middle
        if count > n:
            low = middle
        else:
            high = middle - 1
    return low


@kernel
def _keep(x: Any, bits: Any, mask: Any, n: int, m: int, room: Any, out: Any) -> None:
    """`[rows, columns]`, room `[m]` -> `[rows, columns]`."""
    zero = out.dtype.type(0)
    for row in range(bits.shape[0]):
        for low in range(0, bits.shape[1], m):
            group, kept, raw = x[row, low : low + m], out[row, low : low + m], bits[row, low : low + m]
            keys = room[: raw.size]
            for j in range(raw.size):
                keys[j] = raw[j] & mask
            least = _reached_by(keys, n)
            left = n
            for j in range(keys.size):
                left -= keys[j] > least
            for j in range(keys.size):
                equal = (keys[j] == least) & (left > 0)
                left -= equal
                kept[j] = group[j] if (keys[j] > least) | equal else zero


@kernel
def _high_reached_by(high: Any, n: int) -> Any:
    """As `_reached_by`, of uint16 numbers, at most as many as that holds."""
    low, top = u16(0), u16(0)
    for j in range(high.size):
        top = max(top, high[j])
    while low < top:
        middle = u16(low + u16(u16(top - low + 1) >> 1))
        count = u16(0)
        for j in range(high.size):
            count = u16(count + u16(high[j] >= middle))
        if count == n:
            return middle
        if count > n:
            low = middle
        else:
            top = u16(middle - 1)
    return low


@kernel
def _keep_equal(group: Any, places: Any, n: int, keys: Any, kept: Any) -> None:
    """Keep the n largest magnitudes of those at `places`, of equal ones the earlier; `keys` is int32 room for them."""
    for i in range(places.size):
        keys[i] = i32(u32(bits_of(group[places[i]]) & u32(0x7FFFFFFF)))
    bound = _reached_by(keys, n)
    left = n
    for i in range(places.size):
        left -= keys[i] > bound
    for i in range(places.size):
        equal = (keys[i] == bound) & (left > 0)
        left -= equal
        if (keys[i] > bound) | equal:
            kept[places[i]] = group[places[i]]


@kernel
def _keep_float32(x: Any, n: int, m: int, keys: Any, high: Any, places: Any, out: Any) -> None:
    """`_keep`, by the upper bits of magnitudes first; room `[m]` of int32, uint16 and int64."""
    zero = f32(0)
    for row in range(x.shape[0]):
        for low in range(0, x.shape[1], m):
            group, kept = x[row, low : low + m], out[row, low : low + m]
            upper = high[: group.size]
            for j in range(group.size):
                upper[j] = u16(u32(bits_of(group[j]) & u32(0x7FFFFFFF)) >> u32(15))
            least = _high_reached_by(upper, n)
            reached = u32(0)
            for j in range(group.size):
                reached = u32(reached + u32(upper[j] >= least))
            bound = i32(least) + i32(reached > n)  # then some stay of those that the upper bits do not tell apart
            for j in range(group.size):
                kept[j] = group[j] if i32(upper[j]) >= bound else zero
            if reached > n:
                count = 0
                for j in range(group.size):
                    places[count] = j
                    count += upper[j] == least
                _keep_equal(group, places[:count], n - (i64(reached) - count), keys[:count], kept)


def keep_of_each(deltas: Array, n: int, m: int) -> Array:
    """See plait.ops.keep_of_each."""
    lines, out = _lines(deltas), like(deltas.shape, deltas)
    most = min(m, lines.shape[1])
    if lines.dtype == np.float32 and most < 1 << 16:
        room = empty((most,), i32), empty((most,), u16), empty((most,), i64)
        _keep_float32(lines, n, m, *room, out.reshape(lines.shape))
        return out
    kind = np.dtype(f"i{deltas.itemsize}").type
    keys = empty((most,), kind)
    _keep(lines, lines.view(kind), kind(np.iinfo(kind).max), n, m, keys, out.reshape(lines.shape))
    return out
