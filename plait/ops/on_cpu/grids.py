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
from plait.ops.on_cpu.jit import kernel

__all__ = ["gram_run"]

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
