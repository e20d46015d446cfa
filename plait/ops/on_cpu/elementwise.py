"""Element-wise kernels over stacks `[k, n]`.

Each walks its tile in pieces that stay in the first-level cache and, in a piece, takes one model after the
other: so the inner loops are plain vector loops for any number of models, and sums keep the models' order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from plait.ops.on_cpu.jit import kernel

__all__ = [
    "LOW_WORD",
    "PIECE",
    "add",
    "agreeing_mean",
    "agreeing_sum",
    "clamp",
    "drop",
    "drop_each",
    "elect",
    "largest",
    "mix",
    "scale",
    "subtract",
    "trim",
    "weighted_sum",
]

PIECE = 2048
u32 = np.uint32
f64 = np.float64
LOW_WORD = 0xFFFFFFFF


@kernel
def _sum_piece(stack: Any, weight: Any, low: int, out: Any) -> None:
    factor = weight[0]
    x = stack[0, low : low + out.size]
    for j in range(out.size):
        out[j] = factor * x[j]
    for i in range(1, stack.shape[0]):
        factor = weight[i]
        x = stack[i, low : low + out.size]
        for j in range(out.size):
            out[j] = out[j] + factor * x[j]


@kernel
def weighted_sum(stack: Any, weight: Any, out: Any) -> None:
    """Kernel of the op: `[k, n]`, `[k]` -> `[n]`."""
    for low in range(0, out.size, PIECE):
        _sum_piece(stack, weight, low, out[low : low + PIECE])


@kernel
def elect(stack: Any, weight: Any, out: Any) -> None:
    """Kernel of the op: `[k, n]`, `[k]` -> `[n]`."""
    for low in range(0, out.size, PIECE):
        piece = out[low : low + PIECE]
        _sum_piece(stack, weight, low, piece)
        for j in range(piece.size):
            piece[j] = 1.0 if piece[j] >= 0 else -1.0


@kernel
def agreeing_sum(stack: Any, sign: Any, weight: Any, out: Any) -> None:
    """Kernel of the op: `[k, n]`, `[n]`, `[k]` -> `[n]`."""
    zero = out.dtype.type(0)
    for low in range(0, out.size, PIECE):
        piece, elected = out[low : low + PIECE], sign[low : low + PIECE]
        for j in range(piece.size):
            piece[j] = zero
        for i in range(stack.shape[0]):
            factor, x = weight[i], stack[i, low : low + piece.size]
            for j in range(piece.size):
                vote = factor * x[j]
                piece[j] = piece[j] + (vote if vote * elected[j] > 0 else zero)


@kernel
def agreeing_mean(stack: Any, sign: Any, weight: Any, divisor: Any, out: Any) -> None:
    """Kernel of the op: `[k, n]`, `[n]`, `[k]` -> `[n]`; `divisor` is room for `PIECE` numbers."""
    zero = out.dtype.type(0)
    for low in range(0, out.size, PIECE):
        piece, elected = out[low : low + PIECE], sign[low : low + PIECE]
        share = divisor[: piece.size]
        for j in range(piece.size):
            piece[j] = zero
            share[j] = zero
        for i in range(stack.shape[0]):
            factor, x = weight[i], stack[i, low : low + piece.size]
            for j in range(piece.size):
                vote = factor * x[j]
                agrees = vote * elected[j] > 0
                piece[j] = piece[j] + (vote if agrees else zero)
                share[j] = share[j] + (factor if agrees else zero)
        for j in range(piece.size):
            mean = piece[j] / share[j]
            piece[j] = mean if share[j] != 0 else zero


@kernel
def trim(deltas: Any, threshold: Any, out: Any) -> None:
    """Kernel of the op: `[k, n]`, `[k]` -> `[k, n]`."""
    zero = out.dtype.type(0)
    for i in range(deltas.shape[0]):
        least, x, kept = threshold[i], deltas[i], out[i]
        for j in range(x.size):
            kept[j] = x[j] if abs(x[j]) >= least else zero


@kernel
def largest(deltas: Any, out: Any) -> None:
    """Kernel of the op: `[k, n]` -> `[n]`."""
    zero = out.dtype.type(0)
    for low in range(0, out.size, PIECE):
        best = out[low : low + PIECE]
        x = deltas[0, low : low + best.size]
        for j in range(best.size):
            best[j] = x[j] + zero  # -0 and +0 tie: the positive one wins
        for i in range(1, deltas.shape[0]):
            x = deltas[i, low : low + best.size]
            for j in range(best.size):
                size, record = abs(x[j]), best[j]  # against a negative record a tie wins: -best or the same
                best[j] = x[j] if (size > record) & (size >= -record) else record


@kernel
def clamp(x: Any, low: Any, high: Any, out: Any) -> None:
    """Kernel of the op: `[n]`, two numbers -> `[n]`."""
    for j in range(out.size):
        out[j] = min(max(x[j], low), high)


@kernel
def scale(stack: Any, factor: Any, out: Any) -> None:
    """Kernel of the op: `[k, n]`, `[k]` -> `[k, n]`."""
    for i in range(stack.shape[0]):
        by, x, scaled = factor[i], stack[i], out[i]
        for j in range(x.size):
            scaled[j] = by * x[j]


@kernel
def add(x: Any, y: Any, out: Any) -> None:
    """Kernel of the op: `[n]`, `[n]` -> `[n]`."""
    for j in range(out.size):
        out[j] = x[j] + y[j]


@kernel
def subtract(stack: Any, base: Any, out: Any) -> None:
    """Kernel of the op: `[k, n]`, `[n]` -> `[k, n]`."""
    for low in range(0, base.size, PIECE):
        common = base[low : low + PIECE]
        for i in range(stack.shape[0]):
            x, difference = stack[i, low : low + common.size], out[i, low : low + common.size]
            for j in range(common.size):
                difference[j] = x[j] - common[j]


@kernel
def mix(x: Any) -> Any:
    """Mix 32 bits: Wellons' lowbias32. Numba widens every result, hence the casts."""
    x = u32(x ^ (x >> u32(16)))
    x = u32(x * u32(0x7FEB352D))
    x = u32(x ^ (x >> u32(15)))
    x = u32(x * u32(0x846CA68B))
    return u32(x ^ (x >> u32(16)))


@kernel
def _drop_run(x: Any, index: int, key: Any, limit: int, out: Any) -> None:
    """Drop along a run whose indices, from `index` on, share their high word; `limit` is in [0, 2^32]."""
    zero = out.dtype.type(0)
    if limit == 0:
        for j in range(out.size):
            out[j] = zero
        return
    last = u32(limit - 1)  # 2^32 itself does not fit 32 bits
    first, high = u32(index & LOW_WORD), u32(index >> 32)
    before = u32(key[0] ^ mix(high))
    between = u32(key[1] ^ mix(u32(high ^ u32(0x9E3779B9))))
    for j in range(out.size):
        bits = mix(u32(mix(u32(u32(first + u32(j)) ^ before)) ^ between))
        out[j] = x[j] if bits <= last else zero


@kernel
def drop(deltas: Any, limits: Any, keys: Any, start: int, out: Any) -> None:
    """Kernel of the op: `[k, n]`, int64 `[k]`, uint32 `[k, 2]` (low word first) -> `[k, n]`."""
    size = deltas.shape[1]
    done = 0
    while done < size:
        end = min(size, done + LOW_WORD + 1 - ((start + done) & LOW_WORD))
        for i in range(deltas.shape[0]):
            _drop_run(deltas[i, done:end], start + done, keys[i], limits[i], out[i, done:end])
        done = end


@kernel
def _drop_run_each(x: Any, density: Any, index: int, key: Any, out: Any) -> bool:
    """As `_drop_run`, with a density for each entry; whether all of them are in [0, 1]."""
    zero = out.dtype.type(0)
    first, high = u32(index & LOW_WORD), u32(index >> 32)
    before = u32(key[0] ^ mix(high))
    between = u32(key[1] ^ mix(u32(high ^ u32(0x9E3779B9))))
    good = True
    for j in range(out.size):
        bits = mix(u32(mix(u32(u32(first + u32(j)) ^ before)) ^ between))
        # The same as bits < floor(density * 2^32), as bits is an integer; all of it is exact in float64.
        out[j] = x[j] if f64(bits) + 1.0 <= f64(density[j]) * 4294967296.0 else zero
        good &= (density[j] >= 0) & (density[j] <= 1)
    return good


@kernel
def drop_each(deltas: Any, density: Any, keys: Any, start: int, out: Any) -> bool:
    """Kernel of the op with a density for each entry: `[k, n]`, `[k, n]`, uint32 `[k, 2]` -> `[k, n]`."""
    size = deltas.shape[1]
    done = 0
    good = True
    while done < size:
        end = min(size, done + LOW_WORD + 1 - ((start + done) & LOW_WORD))
        for i in range(deltas.shape[0]):
            good &= _drop_run_each(deltas[i, done:end], density[i, done:end], start + done, keys[i], out[i, done:end])
        done = end
    return good
