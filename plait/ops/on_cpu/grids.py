"""Measuring kernels over the raw elements of all models at once.

The rows of a grid `[k, n]` are the models, then the base if there is one. Piece by piece, in the first-level cache, the
kernel decodes the models into `room` `[k + 1, piece]` and counts or multiplies. Every step is the same arithmetic as the op of that name.

The returned mask has bit i set when model i (the base: bit k) is not finite.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from plait.ops.on_cpu.blocks import dot
from plait.ops.on_cpu.codec import decode_bf16, decode_f16, decode_float
from plait.ops.on_cpu.jit import bits_of, kernel
from plait.ops.on_cpu.lanes import ones_in, trailing_zeros, window_masks

__all__ = ["gram_run", "histogram_run", "window_run"]

BF16, F16, F32 = 0, 1, 2
i32 = np.int32
i64 = np.int64
u32 = np.uint32
f32 = np.float32


@kernel
def _load(kind: int, raw: Any, x: Any) -> bool:
    if kind == BF16:
        return bool(decode_bf16(raw, None, x))
    if kind == F16:
        return bool(decode_f16(raw, None, x))
    return bool(decode_float(raw, None, x))


@kernel
def _load_delta(kind: int, raw: Any, base: Any, x: Any) -> bool:
    if kind == BF16:
        return bool(decode_bf16(raw, base, x))
    if kind == F16:
        return bool(decode_f16(raw, base, x))
    return bool(decode_float(raw, base, x))


@kernel
def _load_all(kind: int, grid: Any, low: int, models: int, has_base: bool, base: Any, stack: Any, size: int) -> Any:
    """Decode one piece of every row; differences when there is a base."""
    mask = i64(0)
    if has_base and not _load(kind, grid[models, low : low + size], base[:size]):
        mask |= i64(1) << i64(models)
    for i in range(models):
        raw = grid[i, low : low + size]
        good = _load_delta(kind, raw, base, stack[i, :size]) if has_base else _load(kind, raw, stack[i, :size])
        if not good:
            mask |= i64(1) << i64(i)
    return mask


@kernel
def _tally(x: Any, size: int, first: Any, shift: Any, counts: Any) -> Any:
    """Count where in the window each magnitude lies, sixteen at a time as few lie there.

    Each counter has 2^shift bit patterns. Return how many lie above, and which of the lower bits some has within.
    """
    above, loose = 0, u32(0)
    width = u32(u32(counts.size) << shift)
    whole = size - size % 16
    for j in range(0, whole, 16):
        both = window_masks(x, j, first, width)
        above += ones_in(u32(both >> u32(16)))
        inside = u32(both & u32(0xFFFF))
        while inside != 0:
            magnitude = u32(bits_of(x[j + trailing_zeros(inside)]) & u32(0x7FFFFFFF))
            place = u32(magnitude - first)
            counts[place >> shift] += 1
            loose = u32(loose | place)
            inside = u32(inside & u32(inside - u32(1)))
    for j in range(whole, size):
        place = u32(u32(bits_of(x[j]) & u32(0x7FFFFFFF)) - first)
        if place < width:
            counts[place >> shift] += 1
            loose = u32(loose | place)
        elif place < u32(0x80000000):
            above += 1
    return above, i64(loose & u32(u32(u32(1) << shift) - u32(1)))


@kernel
def window_run(
    kind: int, grid: Any, has_base: bool, low_bits: Any, counts: Any, above: Any, loose: Any, room: Any
) -> Any:
    """Count every model's magnitudes as `window_count` does: `[k]`, `[k, width]`, `[k]`; skipped where low_bits < 0.

    `loose` `[k + 1]` has the shift, and before that gets the bits that were lost by it.
    """
    models = low_bits.size
    stack, base = room[:models], room[models]
    shift = u32(loose[models])
    mask = i64(0)
    for low in range(0, grid.shape[1], room.shape[1]):
        size = min(room.shape[1], grid.shape[1] - low)
        mask |= _load_all(kind, grid, low, models, has_base, base, stack, size)
        for i in range(models):
            if low_bits[i] >= 0:
                more, lost = _tally(stack[i], size, u32(low_bits[i]), shift, counts[i])
                above[i] += more
                loose[i] |= lost
    return mask


@kernel
def histogram_run(kind: int, grid: Any, has_base: bool, high: Any, counts: Any, room: Any) -> Any:
    """Count every model's magnitudes by their upper 16 bits (`high` -1), or by the lower ones where the upper are `high`.

    Int64 `[k]`, skipped where below -1; `[k, 2^16]`.
    """
    models = high.size
    stack, base = room[:models], room[models]
    mask = i64(0)
    for low in range(0, grid.shape[1], room.shape[1]):
        size = min(room.shape[1], grid.shape[1] - low)
        mask |= _load_all(kind, grid, low, models, has_base, base, stack, size)
        for i in range(models):
            x, wanted = stack[i], high[i]
            if wanted == -1:
                for j in range(size):
                    counts[i, u32(bits_of(x[j]) & u32(0x7FFFFFFF)) >> u32(16)] += 1
            elif wanted >= 0:
                for j in range(size):
                    magnitude = u32(bits_of(x[j]) & u32(0x7FFFFFFF))
                    if magnitude >> u32(16) == u32(wanted):
                        counts[i, magnitude & u32(0xFFFF)] += 1
    return mask


@kernel
def gram_run(kind: int, grid: Any, has_base: bool, room: Any, lanes: Any, out: Any) -> Any:
    """The blocks of `gram_blocks`: -> `[blocks, k(k+1)/2]`; `room` is float32 `[k + 1, BLOCK]`, `lanes` `[LANES]`."""
    models = room.shape[0] - 1
    stack, base = room[:models], room[models]
    mask = i64(0)
    for block in range(out.shape[0]):
        low = block * room.shape[1]
        size = min(room.shape[1], grid.shape[1] - low)
        mask |= _load_all(kind, grid, low, models, has_base, base, stack, size)
        pair = 0
        for i in range(models):
            for j in range(i, models):
                out[block, pair] = dot(stack[i, :size], stack[j, :size], lanes)
                pair += 1
    return mask
