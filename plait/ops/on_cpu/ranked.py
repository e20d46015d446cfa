"""Kernels and wrappers of plait.ops.ranked."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from plait.ops.on_cpu import elementwise
from plait.ops.on_cpu.elementwise import LOW_WORD, mix
from plait.ops.on_cpu.jit import kernel
from plait.ops.on_cpu.last_axis import room_to_sort, write_ranks
from plait.ops.on_cpu.shapes import Array, like, rows_of
from plait.ops.rng import Rng, keep_limits
from plait.ops.scratch import empty

__all__ = ["drop_ranked"]

f64, i64, u32 = np.float64, np.int64, np.uint32


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
def _drop_rows(
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
    """One model's `[rows, n]`; `sort` and `ranks` `[1, n]` are what `write_ranks` takes, `draws` is room."""
    width, counts, keys, places = sort
    zero = out.dtype.type(0)
    for row in range(x.shape[0]):
        write_ranks(bits[row : row + 1], mask, width, counts, keys, places, ranks)
        _draw(start + row * x.shape[1], key, draws)
        for j in range(x.shape[1]):
            chance = min(max(low + step * f64(ranks[0, j]), 0.0), 1.0)
            # The same as draws < floor(chance * 2^32), as they are integers; all of it is exact in float64.
            out[row, j] = x[row, j] if f64(draws[j]) + 1.0 <= chance * 4294967296.0 else zero


def drop_ranked(deltas: Array, low: npt.NDArray[np.float64], step: npt.NDArray[np.float64], rng: Rng) -> Array:
    """See plait.ops.drop_ranked; an entry of rank r stays with probability low + step * r."""
    if deltas.ndim < 2:
        raise ValueError(f"a stack of rows is [k, …, columns], not {list(deltas.shape)}")
    out, columns = like(deltas.shape, deltas), deltas.shape[-1]
    if deltas.size == 0:
        return out
    rows = rows_of(deltas).reshape(len(deltas), -1, columns)
    kind = np.dtype(f"u{deltas.itemsize}").type
    mask = kind((1 << (8 * deltas.itemsize - 1)) - 1)
    sort, ranks, draws = room_to_sort(columns, kind), empty((1, columns), np.int64), empty((columns,), u32)
    for i, (x, kept) in enumerate(zip(rows, out.reshape(rows.shape), strict=True)):
        key = np.array([rng.keys[i] & np.uint64(LOW_WORD), rng.keys[i] >> np.uint64(32)], u32)
        if step[i] == 0:
            elementwise.drop(x.reshape(1, -1), keep_limits(low[i], 1), key[None], rng.start, kept.reshape(1, -1))
        else:
            _drop_rows(x, x.view(kind), mask, sort, ranks, draws, key, rng.start, low[i], step[i], kept)
    return out
