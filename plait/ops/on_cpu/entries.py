"""Kernels and wrappers of plait.ops.entries, but for the exponentials.

The kernels of ops whose arguments broadcast walk them as plait.ops.on_cpu.shapes.Aligned says, in pieces; a piece
along which an array is repeated is written out first, in `room`, so that the inner loops are plain vector loops.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from plait.ops.on_cpu.elementwise import PIECE
from plait.ops.on_cpu.jit import kernel
from plait.ops.on_cpu.shapes import Array, aligned, common_dtype, flat_of, like, rows_of
from plait.ops.scratch import empty

__all__ = ["maximum", "median", "minimum", "sign", "sqrt", "stacked", "where"]


@kernel
def _part(x: Any, at: int, step: int, low: int, room: Any) -> Any:
    """The next `room.size` entries of a run of x that starts at `at`; where it is one entry, that repeated."""
    if step:
        return x[at + low : at + low + room.size]
    value = x[at]
    for j in range(room.size):
        room[j] = value
    return room


@kernel
def _where(c: Any, c_steps: Any, x: Any, x_steps: Any, y: Any, y_steps: Any, yes: Any, room: Any, out: Any) -> None:
    """`out` is `[a, b, c]`; `yes` `[PIECE]` and `room` `[2, PIECE]` are room for what is repeated."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            c_at, x_at = i * c_steps[0] + j * c_steps[1], i * x_steps[0] + j * x_steps[1]
            y_at = i * y_steps[0] + j * y_steps[1]
            for low in range(0, out.shape[2], PIECE):
                piece = out[i, j, low : low + PIECE]
                chosen = _part(c, c_at, c_steps[2], low, yes[: piece.size])
                first = _part(x, x_at, x_steps[2], low, room[0, : piece.size])
                second = _part(y, y_at, y_steps[2], low, room[1, : piece.size])
                for e in range(piece.size):
                    one, other = first[e], second[e]  # both read, or there is a jump for each entry
                    piece[e] = one if chosen[e] else other


@kernel
def _lesser(x: Any, y: Any, out: Any) -> None:
    zero = out.dtype.type(0)
    for e in range(out.size):
        one, other = x[e], y[e]
        less = other < one  # what min() does is no vector loop
        out[e] = (other if less else one) + zero  # zeros come out as +0, whichever was first


@kernel
def _greater(x: Any, y: Any, out: Any) -> None:
    zero = out.dtype.type(0)
    for e in range(out.size):
        one, other = x[e], y[e]
        more = other > one
        out[e] = (other if more else one) + zero


@kernel
def _extreme(greatest: bool, x: Any, x_steps: Any, y: Any, y_steps: Any, room: Any, out: Any) -> None:
    """`out` is `[a, b, c]`; `room` `[2, PIECE]` is room for what is repeated."""
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            x_at, y_at = i * x_steps[0] + j * x_steps[1], i * y_steps[0] + j * y_steps[1]
            for low in range(0, out.shape[2], PIECE):
                piece = out[i, j, low : low + PIECE]
                first = _part(x, x_at, x_steps[2], low, room[0, : piece.size])
                second = _part(y, y_at, y_steps[2], low, room[1, : piece.size])
                if greatest:
                    _greater(first, second, piece)
                else:
                    _lesser(first, second, piece)


def where(condition: Any, x: Any, y: Any) -> Array:
    """See plait.ops.where."""
    chosen = np.asarray(condition)
    if chosen.dtype != np.bool_:
        raise TypeError(f"a condition is an array of bool, not of {chosen.dtype}")
    dtype = common_dtype(x, y)
    way = aligned(chosen, np.asarray(x, dtype), np.asarray(y, dtype))
    out = empty(way.shape, dtype)
    if out.size:
        (c, first, second), (c_steps, x_steps, y_steps) = way.arrays, way.steps
        yes, room = empty((PIECE,), np.bool_), empty((2, PIECE), dtype)
        _where(c, c_steps, first, x_steps, second, y_steps, yes, room, out.reshape(way.extents))
    return out


def minimum(x: Any, y: Any) -> Array:
    """See plait.ops.minimum."""
    return _one_of(False, x, y)


def maximum(x: Any, y: Any) -> Array:
    """See plait.ops.maximum."""
    return _one_of(True, x, y)


def _one_of(greatest: bool, x: Any, y: Any) -> Array:
    dtype = common_dtype(x, y)
    way = aligned(np.asarray(x, dtype), np.asarray(y, dtype))
    out = empty(way.shape, dtype)
    if out.size:
        (first, second), (x_steps, y_steps) = way.arrays, way.steps
        _extreme(greatest, first, x_steps, second, y_steps, empty((2, PIECE), dtype), out.reshape(way.extents))
    return out


@kernel
def _sign(x: Any, out: Any) -> None:
    one, zero = out.dtype.type(1), out.dtype.type(0)
    for j in range(out.size):
        out[j] = (one if x[j] > 0 else zero) - (one if x[j] < 0 else zero)


@kernel
def _sqrt(x: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = np.sqrt(x[j])


def sign(x: Any) -> Array:
    """See plait.ops.sign."""
    out = like(x.shape, x)
    _sign(flat_of(x), out.reshape(-1))
    return out


def sqrt(x: Any) -> Array:
    """See plait.ops.sqrt."""
    out = like(x.shape, x)
    _sqrt(flat_of(x), out.reshape(-1))
    return out


def stacked(*arrays: Any) -> Array:
    """See plait.ops.stacked."""
    dtype, shape = common_dtype(*arrays), np.shape(arrays[0])
    for x in arrays:
        if np.shape(x) != shape:
            raise ValueError(f"only arrays of one shape can be stacked, not {list(shape)} and {list(np.shape(x))}")
    out = empty((len(arrays), *shape), dtype)
    for i, x in enumerate(arrays):
        out[i] = x
    return out


@kernel
def _order(x: Any, y: Any, size: int) -> None:
    for j in range(size):
        a, b = x[j], y[j]
        less = b < a
        x[j] = b if less else a
        y[j] = a if less else b


@kernel
def _sort_models(x: Any, size: int) -> None:
    """Sort the first `size` columns of `[k, n]` along k, by Batcher's odd-even merging network for any k (Knuth, volume 3, algorithm 5.2.2M)."""
    k = x.shape[0]
    top = 1
    while 2 * top < k:
        top *= 2
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while d > 0:
            for i in range(k - d):
                if i & p == r:
                    _order(x[i], x[i + d], size)
            d, q, r = q - p, q // 2, p
        p //= 2


@kernel
def _median(stack: Any, room: Any, out: Any) -> None:
    """`[k, n]`, room `[k, PIECE]` -> `[n]`."""
    k = stack.shape[0]
    half, zero = out.dtype.type(0.5), out.dtype.type(0)
    for low in range(0, out.size, PIECE):
        piece = out[low : low + PIECE]
        for i in range(k):
            x, model = room[i], stack[i, low : low + piece.size]
            for j in range(piece.size):
                x[j] = model[j]
        _sort_models(room, piece.size)
        first, second = room[(k - 1) // 2], room[k // 2]
        if k % 2:
            for j in range(piece.size):
                piece[j] = first[j] + zero
        else:
            for j in range(piece.size):
                piece[j] = (first[j] + second[j]) * half + zero


def median(stack: Any) -> Array:
    """See plait.ops.median."""
    out = like(stack.shape[1:], stack)
    _median(rows_of(stack), like((stack.shape[0], PIECE), stack), out.reshape(-1))
    return out
