"""A merge's whole way in one call: from the raw elements of all models to the raw elements of the result.

The rows of a grid `[k, n]` are the models, then the base if there is one. Piece by piece, in the first-level cache,
the kernel decodes the models, selects (trims or drops), adds up or elects and merges, and encodes. Every step
is the same arithmetic, in the same order, as the op of that name, so the bytes are the same as op by op.

The returned mask has bit i set when model i (the base: bit k) is not finite, bit `WRITTEN` when the result is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from plait.ops.on_cpu.blocks import BLOCK, LANES, abs_sum, dot
from plait.ops.on_cpu.codec import decode_bf16, decode_f16, decode_float, encode_bf16, encode_f16, encode_float
from plait.ops.on_cpu.elementwise import drop
from plait.ops.on_cpu.jit import bits_of, kernel

__all__ = ["BLOCK", "PIECE", "gram_run", "merge_run", "norms_run", "window_run"]

PIECE = 1024
WRITTEN = 62
BF16, F16, F32 = 0, 1, 2
TRIM, DROP = 1, 2  # ways to select
SUM, VOTE, MEAN = 0, 1, 2  # ways to merge
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
def _write(kind: int, x: Any, base: Any, raw: Any) -> bool:
    if kind == BF16:
        return bool(encode_bf16(x, base, raw))
    if kind == F16:
        return bool(encode_f16(x, base, raw))
    return bool(encode_float(x, base, raw))


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
def _total(stack: Any, weight: Any, size: int, out: Any) -> None:
    """The weighted sum of a piece, in the order of `weighted_sum`."""
    for i in range(stack.shape[0]):
        factor, x = weight[i], stack[i]
        if i == 0:
            for j in range(size):
                out[j] = factor * x[j]
        else:
            for j in range(size):
                out[j] = out[j] + factor * x[j]


@kernel
def _agree(stack: Any, weight: Any, size: int, sign: Any, out: Any, share: Any, mean: bool) -> None:
    """Merge what has the sign, as `agreeing_sum` or `agreeing_mean`; `sign` has the votes and is overwritten."""
    zero = f32(0)
    for j in range(size):
        sign[j] = f32(1) if sign[j] >= 0 else f32(-1)
        out[j] = zero
        share[j] = zero
    for i in range(stack.shape[0]):
        factor, x = weight[i], stack[i]
        for j in range(size):
            vote = factor * x[j]
            agrees = vote * sign[j] > 0
            out[j] = out[j] + (vote if agrees else zero)
            share[j] = share[j] + (factor if agrees else zero)
    if mean:
        for j in range(size):
            quotient = out[j] / share[j]
            out[j] = quotient if share[j] != 0 else zero


@kernel
def _trim(stack: Any, threshold: Any, size: int) -> None:
    zero = f32(0)
    for i in range(stack.shape[0]):
        least, x = threshold[i], stack[i]
        for j in range(size):
            x[j] = x[j] if abs(x[j]) >= least else zero


@kernel
def _times(stack: Any, factor: Any, size: int) -> None:
    for i in range(stack.shape[0]):
        by, x = factor[i], stack[i]
        for j in range(size):
            x[j] = by * x[j]


@kernel
def merge_run(
    kind: int,
    grid: Any,
    has_base: bool,
    select: int,
    threshold: Any,
    limits: Any,
    keys: Any,
    start: int,
    factor: Any,
    way: int,
    weight: Any,
    scale: Any,
    room: Any,
    out: Any,
) -> Any:
    """Make `out` `[n]`; `room` is float32 `[2k + 4, PIECE]`; `factor` is empty for none; `scale` is float32."""
    models = weight.size
    stack, kept = room[:models], room[models : 2 * models]
    base, total, result, share = room[2 * models], room[2 * models + 1], room[2 * models + 2], room[2 * models + 3]
    mask = i64(0)
    for low in range(0, out.size, PIECE):
        size = min(PIECE, out.size - low)
        mask |= _load_all(kind, grid, low, models, has_base, base, stack, size)
        models_in = stack
        if select == TRIM:
            _trim(stack, threshold, size)
        elif select == DROP:
            drop(stack, limits, keys, start + low, kept)
            models_in = kept
        if factor.size > 0:
            _times(models_in, factor, size)
        _total(models_in, weight, size, total)
        merged = total
        if way != SUM:
            _agree(models_in, weight, size, total, result, share, way == MEAN)
            merged = result
        if scale != 1:
            for j in range(size):
                merged[j] = scale * merged[j]
        piece = out[low : low + size]
        good = _write(kind, merged[:size], base, piece) if has_base else _write(kind, merged[:size], None, piece)
        if not good:
            mask |= i64(1) << i64(WRITTEN)
    return mask


@kernel
def _places(x: Any, size: int, first: Any, width: Any, places: Any) -> int:
    """Write where in the window each magnitude lies (far past its end when below or above it); count those above."""
    above = i32(0)
    for j in range(size):
        place = u32(u32(bits_of(x[j]) & u32(0x7FFFFFFF)) - first)
        places[j] = place
        above = i32(above + i32(i32(place >= width) & i32(place < u32(0x80000000))))
    return int(above)


@kernel
def _tally(places: Any, size: int, width: Any, inside: Any, counts: Any) -> None:
    """Count the places inside the window. They are gathered without a branch first: a guess would often be wrong."""
    found = 0
    for j in range(size):
        place = places[j]
        inside[found] = place
        found += 1 if place < width else 0
    for j in range(found):
        counts[inside[j]] += 1


@kernel
def window_run(kind: int, grid: Any, has_base: bool, low_bits: Any, counts: Any, above: Any, room: Any) -> Any:
    """Count every model's magnitudes as `window_count` does: `[k]`, `[k, width]`, `[k]`; skipped where low_bits < 0."""
    models = low_bits.size
    stack, base = room[:models], room[models]
    places, inside = np.empty(PIECE, np.uint32), np.empty(PIECE + 1, np.uint32)
    width = u32(counts.shape[1])
    mask = i64(0)
    for low in range(0, grid.shape[1], PIECE):
        size = min(PIECE, grid.shape[1] - low)
        mask |= _load_all(kind, grid, low, models, has_base, base, stack, size)
        for i in range(models):
            if low_bits[i] >= 0:
                above[i] += _places(stack[i], size, u32(low_bits[i]), width, places)
                _tally(places, size, width, inside, counts[i])
    return mask


@kernel
def gram_run(kind: int, grid: Any, has_base: bool, room: Any, out: Any) -> Any:
    """The blocks of `gram_blocks`: -> `[blocks, k(k+1)/2]`; `room` is float32 `[k + 1, BLOCK]`."""
    models = room.shape[0] - 1
    stack, base = room[:models], room[models]
    lanes = np.empty(LANES, np.float64)
    mask = i64(0)
    for block in range(out.shape[0]):
        low = block * BLOCK
        size = min(BLOCK, grid.shape[1] - low)
        mask |= _load_all(kind, grid, low, models, has_base, base, stack, size)
        pair = 0
        for i in range(models):
            for j in range(i, models):
                out[block, pair] = dot(stack[i, :size], stack[j, :size], lanes)
                pair += 1
    return mask


@kernel
def norms_run(
    kind: int,
    grid: Any,
    has_base: bool,
    select: int,
    threshold: Any,
    limits: Any,
    keys: Any,
    start: int,
    room: Any,
    before: Any,
    after: Any,
) -> Any:
    """The blocks of `abs_sum_blocks`, before and after selection: `[blocks, k]`; `room` is float32 `[2k + 1, BLOCK]`."""
    models = before.shape[1]
    stack, kept, base = room[:models], room[models : 2 * models], room[2 * models]
    lanes = np.empty(LANES, np.float64)
    mask = i64(0)
    for block in range(before.shape[0]):
        low = block * BLOCK
        size = min(BLOCK, grid.shape[1] - low)
        mask |= _load_all(kind, grid, low, models, has_base, base, stack, size)
        for i in range(models):
            before[block, i] = abs_sum(stack[i, :size], lanes)
        chosen = stack
        if select == TRIM:
            _trim(stack, threshold, size)
        elif select == DROP:
            drop(stack, limits, keys, start + low, kept)
            chosen = kept
        for i in range(models):
            after[block, i] = abs_sum(chosen[i, :size], lanes)
    return mask
