"""Whole batches in one call: decode every model, and, for weighted sums, add up and encode as well.

The rows of a grid `[k, n]` of raw elements are the models, then the base if there is one. The results are those of
`decode`, `decode_delta`, `weighted_sum` and `encode` called in turn, bit for bit; what is saved is the calls and the
traffic between them. Each kernel returns a bit mask: bit i is set when model i (or the base, last) is not
finite, and bit `WRITTEN` when what was written is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from plait.ops.on_cpu.codec import PIECE, decode_bf16, decode_f16, decode_float, encode_bf16, encode_f16, encode_float
from plait.ops.on_cpu.jit import kernel

__all__ = ["COMBINERS", "MOST", "STACKERS", "WRITTEN"]

WRITTEN = 62
MOST = 60  # models that the mask has bits for
i64 = np.int64


@kernel
def _accumulate(x: Any, factor: Any, begins: bool, out: Any) -> None:
    if begins:
        for j in range(out.size):
            out[j] = factor * x[j]
    else:
        for j in range(out.size):
            out[j] = out[j] + factor * x[j]


@kernel
def stack_bf16(grid: Any, low: int, base: Any, out: Any) -> Any:
    mask = i64(0)
    for i in range(out.shape[0]):
        if not decode_bf16(grid[i, low : low + out.shape[1]], base, out[i]):
            mask |= i64(1) << i64(i)
    return mask


@kernel
def stack_f16(grid: Any, low: int, base: Any, out: Any) -> Any:
    mask = i64(0)
    for i in range(out.shape[0]):
        if not decode_f16(grid[i, low : low + out.shape[1]], base, out[i]):
            mask |= i64(1) << i64(i)
    return mask


@kernel
def stack_float(grid: Any, low: int, base: Any, out: Any) -> Any:
    mask = i64(0)
    for i in range(out.shape[0]):
        if not decode_float(grid[i, low : low + out.shape[1]], base, out[i]):
            mask |= i64(1) << i64(i)
    return mask


@kernel
def combine_bf16(grid: Any, weight: Any, has_base: bool, room: Any, out: Any) -> Any:
    mask = i64(0)
    models = weight.size
    for low in range(0, out.size, PIECE):
        size = min(PIECE, out.size - low)
        total, x, base = room[0, :size], room[1, :size], room[2, :size]
        if has_base and not decode_bf16(grid[models, low : low + size], None, base):
            mask |= i64(1) << i64(models)
        for i in range(models):
            raw = grid[i, low : low + size]
            good = decode_bf16(raw, base, x) if has_base else decode_bf16(raw, None, x)
            if not good:
                mask |= i64(1) << i64(i)
            _accumulate(x, weight[i], i == 0, total)
        piece = out[low : low + size]
        good = encode_bf16(total, base, piece) if has_base else encode_bf16(total, None, piece)
        if not good:
            mask |= i64(1) << i64(WRITTEN)
    return mask


@kernel
def combine_f16(grid: Any, weight: Any, has_base: bool, room: Any, out: Any) -> Any:
    mask = i64(0)
    models = weight.size
    for low in range(0, out.size, PIECE):
        size = min(PIECE, out.size - low)
        total, x, base = room[0, :size], room[1, :size], room[2, :size]
        if has_base and not decode_f16(grid[models, low : low + size], None, base):
            mask |= i64(1) << i64(models)
        for i in range(models):
            raw = grid[i, low : low + size]
            good = decode_f16(raw, base, x) if has_base else decode_f16(raw, None, x)
            if not good:
                mask |= i64(1) << i64(i)
            _accumulate(x, weight[i], i == 0, total)
        piece = out[low : low + size]
        good = encode_f16(total, base, piece) if has_base else encode_f16(total, None, piece)
        if not good:
            mask |= i64(1) << i64(WRITTEN)
    return mask


@kernel
def combine_float(grid: Any, weight: Any, has_base: bool, room: Any, out: Any) -> Any:
    mask = i64(0)
    models = weight.size
    for low in range(0, out.size, PIECE):
        size = min(PIECE, out.size - low)
        total, x, base = room[0, :size], room[1, :size], room[2, :size]
        if has_base and not decode_float(grid[models, low : low + size], None, base):
            mask |= i64(1) << i64(models)
        for i in range(models):
            raw = grid[i, low : low + size]
            good = decode_float(raw, base, x) if has_base else decode_float(raw, None, x)
            if not good:
                mask |= i64(1) << i64(i)
            _accumulate(x, weight[i], i == 0, total)
        piece = out[low : low + size]
        good = encode_float(total, base, piece) if has_base else encode_float(total, None, piece)
        if not good:
            mask |= i64(1) << i64(WRITTEN)
    return mask


# code -> (the numpy type that raw bytes are read as, the kernel)
STACKERS: dict[str, tuple[Any, Any]] = {
    "BF16": (np.uint16, stack_bf16),
    "F16": (np.uint16, stack_f16),
    "F32": (np.float32, stack_float),
}
COMBINERS: dict[str, tuple[Any, Any]] = {
    "BF16": (np.uint16, combine_bf16),
    "F16": (np.uint16, combine_f16),
    "F32": (np.float32, combine_float),
}
