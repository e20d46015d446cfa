"""Kernels and wrappers of plait.ops.ranked.

Whether an entry stays depends on its rank, but most entries need none: a draw below the least chance of a row keeps any
entry and one above the greatest drops it, and in between it is enough, mostly, to know in which part of the row's order
the entry lies. So long rows of float32 are not sorted, but counted by magnitude in bins, and what that leaves open is
looked at again: by parts, by bins, and in the end one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from plait.ops.on_cpu import elementwise
from plait.ops.on_cpu.elementwise import LOW_WORD, mix
from plait.ops.on_cpu.jit import bits_of, kernel
from plait.ops.on_cpu.lanes import bytes_equal, first_of, ones_in, take_marked, window_masks
from plait.ops.on_cpu.last_axis import room_to_sort, write_ranks
from plait.ops.on_cpu.shapes import Array, like, rows_of
from plait.ops.rng import Rng, keep_limits
from plait.ops.scratch import empty

__all__ = ["drop_ranked"]

f64, i32, i64, u8, u16, u32, u64 = np.float64, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64
BINS = 512
FINEST = 18  # bits of a magnitude that a bin leaves out: 32 bins for each power of two
LEAST = 256  # columns: shorter rows are sorted
MOST_OPEN = 256  # entries looked at one by one: a row with more of them is sorted
PARTS = 8


@kernel
def _draw(index: int, key: Any, out: Any) -> None:
    """Write the random bits of the elements from `index` on: see plait.ops.rng."""
    done = 0
    while done < out.size:
        first, high = u32((index + done) & LOW_WORD), u32((index + done) >> 32)
        run = out[done : min(out.size, done + LOW_WORD + 1 - i64(first))]
        before = u32(key[0] ^ mix(high))
        between = u32(key[1] ^ mix(u32(high ^ u32(0x9E3779B9))))
        for j in range(run.size):
            run[j] = mix(u32(mix(u32(u32(first + u32(j)) ^ before)) ^ between))
        done += run.size


@kernel
def _stays(draw: Any, rank: Any, low: float, step: float) -> bool:
    """Whether the draw lies below the chance; the same as below floor(chance * 2^32), and exact in float64."""
    chance = min(max(low + step * f64(rank), 0.0), 1.0)
    return bool(f64(draw) + 1.0 <= chance * 4294967296.0)


@kernel
def _sorted_rows(
    x: Any,
    bits: Any,
    mask: Any,
    sort: Any,
    ranks: Any,
    draws: Any,
    key: Any,
    start: int,
    low: float,
    step: float,
    out: Any,
) -> None:
    """Keep what stays of one model's `[rows, n]`; `sort` and `ranks` `[1, n]` are what `write_ranks` takes."""
    width, counts, keys, places = sort
    zero = out.dtype.type(0)
    for row in range(x.shape[0]):
        _draw(start + row * x.shape[1], key, draws)
        write_ranks(bits[row : row + 1], mask, width, counts, keys, places, ranks)
        for j in range(x.shape[1]):
            out[row, j] = x[row, j] if _stays(draws[j], ranks[0, j], low, step) else zero


@kernel
def _bin(x: Any, places: Any) -> bool:
    """Write the bin of each magnitude; zeros have bin 0 to themselves. False where there is a -0, which is none of them."""
    top = negative = u32(0)
    for j in range(x.size):
        bits = bits_of(x[j])
        top = max(top, u32(bits & u32(0x7FFFFFFF)))
        negative = u32(negative | u32(bits == u32(0x80000000)))
    least = max(i32(0), i32(top >> u32(FINEST)) - i32(BINS - 1))
    for j in range(x.size):
        bits = bits_of(x[j])
        place = max(i32(1), i32(u32(bits & u32(0x7FFFFFFF)) >> u32(FINEST)) - least)
        places[j] = u16(place if bits != u32(0) else i32(0))
    return bool(negative == 0)


@kernel
def _count(places: Any, counts: Any, below: Any) -> None:
    """Write how many entries lie below each bin: `[BINS + 1]`; by four counters in turn, as neighbours are often equal."""
    c0, c1, c2, c3 = counts[0], counts[1], counts[2], counts[3]
    for b in range(BINS):
        c0[b] = c1[b] = c2[b] = c3[b] = u32(0)
    fours = places[: places.size - places.size % 4].view(u64)
    for j in range(fours.size):
        four = fours[j]
        c0[four & u64(0xFFFF)] += u32(1)
        c1[(four >> u64(16)) & u64(0xFFFF)] += u32(1)
        c2[(four >> u64(32)) & u64(0xFFFF)] += u32(1)
        c3[four >> u64(48)] += u32(1)
    for j in range(4 * fours.size, places.size):
        c0[places[j]] += u32(1)
    for b in range(BINS):
        c0[b] = u32(u32(c0[b] + c1[b]) + u32(c2[b] + c3[b]))
    total = u32(0)
    for b in range(BINS):
        below[b] = total
        total = u32(total + c0[b])
    below[BINS] = total


@kernel
def _limit(rank: Any, low: float, step: float) -> Any:
    """The upper 16 bits of the draws up to which an entry of that rank stays."""
    return u16(min(min(max(low + step * f64(rank), 0.0), 1.0) * 65536.0, 65535.0))


@kernel
def _cut(below: Any, low: float, step: float, first: Any, limit: Any) -> None:
    """Cut the bins into parts of about as many entries: `first` bins of the parts but the first, limits at their ends."""
    size = i64(below[BINS])
    limit[0], limit[PARTS] = _limit(0, low, step), _limit(size, low, step)
    begin = 0
    for part in range(1, PARTS):
        end = BINS
        while begin < end:
            middle = (begin + end) >> 1
            if i64(below[middle]) * PARTS >= part * size:
                end = middle
            else:
                begin = middle + 1
        first[part - 1], limit[part] = begin, _limit(below[begin], low, step)


@kernel
def _by_parts(places: Any, draws: Any, first: Any, limit: Any, state: Any) -> None:
    """Write 2 for what stays whatever its rank in its part, 0 for what does not (and for zeros), 1 for what is open."""
    f1, f2, f3, f4, f5, f6, f7 = first[0], first[1], first[2], first[3], first[4], first[5], first[6]
    a0, a1, a2, a3, a4 = limit[0], limit[1], limit[2], limit[3], limit[4]
    a5, a6, a7, a8 = limit[5], limit[6], limit[7], limit[8]
    for j in range(places.size):
        place, draw = places[j], u16(draws[j] >> u32(16))
        least, most = a0, a1
        least, most = a1 if place >= f1 else least, a2 if place >= f1 else most
        least, most = a2 if place >= f2 else least, a3 if place >= f2 else most
        least, most = a3 if place >= f3 else least, a4 if place >= f3 else most
        least, most = a4 if place >= f4 else least, a5 if place >= f4 else most
        least, most = a5 if place >= f5 else least, a6 if place >= f5 else most
        least, most = a6 if place >= f6 else least, a7 if place >= f6 else most
        least, most = a7 if place >= f7 else least, a8 if place >= f7 else most
        known = u8(draw < least) + u8(draw <= most)
        state[j] = u8(known if place != 0 else 0)


@kernel
def _by_bins(places: Any, draws: Any, below: Any, low: float, step: float, state: Any, left: Any) -> int:
    """Settle what is open by the ranks that its bin has; list what is open still, and return how many."""
    found = 0
    for start in range(0, state.size, 64):
        bits = bytes_equal(state, start, u32(1))
        while bits != 0:
            left[found] = start + first_of(bits)
            found += 1
            bits = u64(bits & u64(bits - u64(1)))
    count = 0
    for i in range(found):
        j = left[i]
        place = places[j]
        sure = _stays(draws[j], below[place], low, step)
        state[j] = u8(2 if sure else 0)
        left[count] = j
        count += (not sure) & _stays(draws[j], i64(below[place + 1]) - 1, low, step)
    return count


@kernel
def _rank(x: Any, j: int) -> Any:
    """Count the smaller magnitudes, and the equal ones before: sixteen at a time."""
    own = u32(bits_of(x[j]) & u32(0x7FFFFFFF))
    whole, middle, others = x.size - x.size % 16, j - j % 16, u32(0)
    for low in range(0, min(middle, whole), 16):
        others = u32(others + ones_in(u32(window_masks(x, low, own, u32(1)) >> u32(16))))
    for low in range(middle + 16, whole, 16):
        others = u32(others + ones_in(window_masks(x, low, own, u32(1))))
    if middle < whole:  # what is equal and comes before is smaller
        both = window_masks(x, middle, own, u32(1))
        others = u32(others + ones_in(u32(both & ~u32((u32(1) << u32(j - middle)) - u32(1)))))
    for i in range(whole, x.size):
        bits = u32(bits_of(x[i]) & u32(0x7FFFFFFF))
        others = u32(others + u32((bits > own) | ((bits == own) & (i >= j))))
    return i64(x.size) - i64(others)


@kernel
def _mark_rows(
    x: Any, sort: Any, ranks: Any, room: Any, key: Any, start: int, low: float, step: float, marks: Any
) -> None:
    """Set the bits of what stays of one model's float32 `[rows, n]`: uint64 `[rows, n / 64]`; `room` is of `_room`."""
    draws, places, counts, below, first, limit, state, left = room
    width, digits, keys, order = sort
    state[places.size :] = 0  # what lies beyond the row is not open, and does not stay
    for row in range(x.shape[0]):
        entries = x[row]
        _draw(start + row * x.shape[1], key, draws)
        count = MOST_OPEN + 1
        if _bin(entries, places):
            _count(places, counts, below)
            _cut(below, low, step, first, limit)
            _by_parts(places, draws, first, limit, state)
            count = _by_bins(places, draws, below, low, step, state, left)
        if count <= MOST_OPEN:
            for i in range(count):
                j = left[i]
                state[j] = u8(2 if _stays(draws[j], _rank(entries, j), low, step) else 0)
        else:
            write_ranks(x[row : row + 1].view(u32), u32(0x7FFFFFFF), width, digits, keys, order, ranks)
            for j in range(entries.size):
                state[j] = u8(2 if _stays(draws[j], ranks[0, j], low, step) else 0)
        for word in range(marks.shape[1]):
            marks[row, word] = bytes_equal(state, 64 * word, u32(2))


@kernel
def _take(x: Any, marks: Any, out: Any) -> None:
    """Take what is marked: float32 `[rows, n]`, uint64 `[rows, n / 64]`."""
    whole = x.shape[1] - x.shape[1] % 64
    for row in range(x.shape[0]):
        for low in range(0, whole, 64):
            take_marked(x[row], low, marks[row, low >> 6], out[row])
        for j in range(whole, x.shape[1]):
            stays = (marks[row, whole >> 6] >> u64(j - whole)) & u64(1)
            out[row, j] = x[row, j] if stays != 0 else np.float32(0)


def _room(columns: int) -> tuple[Array, ...]:
    """Return what `_mark_rows` writes to."""
    return (
        empty((columns,), u32),
        empty((columns,), u16),
        empty((4, BINS), u32),
        empty((BINS + 1,), u32),
        empty((PARTS - 1,), u16),
        empty((PARTS + 1,), u16),
        empty((-(-columns // 64) * 64,), u8),
        empty((columns,), np.int64),
    )


def _key(rng: Rng, model: int) -> Array:
    return np.array([rng.keys[model] & np.uint64(LOW_WORD), rng.keys[model] >> np.uint64(32)], u32)


def _marks(rows: Array, low: npt.NDArray[np.float64], step: npt.NDArray[np.float64], rng: Rng) -> Array:
    """Return what stays of long rows of float32, as bits: `[k, rows, columns / 64]` uint64; remembered, or found now."""
    models, count, columns = rows.shape
    about = rng.start, rows.shape, low.tobytes(), step.tobytes()
    if rng.memory is not None and about in rng.memory.held:
        return rng.memory.held[about]
    marks = np.empty((models, count, -(-columns // 64)), u64)
    sort, ranks, room = room_to_sort(columns, u32), empty((1, columns), np.int64), _room(columns)
    for i in np.flatnonzero(step).tolist():
        _mark_rows(rows[i], sort, ranks, room, _key(rng, i), rng.start, low[i], step[i], marks[i])
    if rng.memory is not None:
        rng.memory.hold(about, marks)
    return marks


def drop_ranked(deltas: Array, low: npt.NDArray[np.float64], step: npt.NDArray[np.float64], rng: Rng) -> Array:
    """See plait.ops.drop_ranked; an entry of rank r stays with probability low + step * r."""
    if deltas.ndim < 2:
        raise ValueError(f"a stack of rows is [k, …, columns], not {list(deltas.shape)}")
    out, columns = like(deltas.shape, deltas), deltas.shape[-1]
    if deltas.size == 0:
        return out
    rows = rows_of(deltas).reshape(len(deltas), -1, columns)
    long = rows.dtype == np.float32 and LEAST <= columns < 1 << 31
    marks = _marks(rows, low, step, rng) if long and step.any() else None
    for i, (x, kept) in enumerate(zip(rows, out.reshape(rows.shape), strict=True)):
        if step[i] == 0:
            limits = keep_limits(low[i], 1)
            elementwise.drop(x.reshape(1, -1), limits, _key(rng, i)[None], rng.start, kept.reshape(1, -1))
        elif marks is not None:
            _take(x, marks[i], kept)
        else:
            kind = np.dtype(f"u{x.itemsize}").type
            mask = kind((1 << (8 * x.itemsize - 1)) - 1)
            room = room_to_sort(columns, kind), empty((1, columns), np.int64), empty((columns,), u32)
            _sorted_rows(x, x.view(kind), mask, *room, _key(rng, i), rng.start, low[i], step[i], kept)
    return out
