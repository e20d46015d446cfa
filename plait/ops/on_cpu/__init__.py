"""The ops for numpy arrays: shapes and dtypes settled here, the arithmetic in Numba kernels.

Results come from `plait.ops.scratch.empty`. Kernels are compiled at first use, once per dtype, and cached
on disk. A read-only or unaligned input is another type to Numba and costs another compilation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from plait.ops.on_cpu import blocks, codec, elementwise
from plait.ops.on_cpu.entries import maximum, median, minimum, sign, sqrt, stacked, where
from plait.ops.on_cpu.exponential import exp, tanh
from plait.ops.on_cpu.last_axis import keep_of_each, ranks, row_norm, row_sum, softmax_sums
from plait.ops.on_cpu.ranked import drop_ranked
from plait.ops.on_cpu.rows import gram_of_rows, weighted_rows
from plait.ops.on_cpu.shapes import Array, flat_of, like, per_model, plain, rows_of
from plait.ops.on_cpu.sums import ordered_bits, sum_blocks
from plait.ops.rng import Rng, first_outside, keep_limits
from plait.ops.scratch import empty

__all__ = [
    "abs_sum_blocks",
    "add",
    "agreeing_mean",
    "agreeing_sum",
    "clamp",
    "decode",
    "drop",
    "drop_ranked",
    "elect",
    "encode",
    "exp",
    "gram_blocks",
    "gram_of_rows",
    "histogram_high",
    "histogram_low",
    "keep_of_each",
    "largest",
    "magnitude_bits",
    "maximum",
    "median",
    "minimum",
    "ordered_bits",
    "ranks",
    "row_norm",
    "row_sum",
    "scale",
    "sign",
    "softmax_sums",
    "sqrt",
    "stacked",
    "subtract",
    "sum_blocks",
    "tanh",
    "trim",
    "weighted_rows",
    "weighted_sum",
    "where",
    "window_count",
]


def weighted_sum(stack: Array, weight: Any) -> Array:
    """See plait.ops.weighted_sum."""
    out = like(stack.shape[1:], stack)
    elementwise.weighted_sum(rows_of(stack), per_model(weight, stack), out.reshape(-1))
    return out


def trim(deltas: Array, threshold: Any) -> Array:
    """See plait.ops.trim."""
    out = like(deltas.shape, deltas)
    elementwise.trim(rows_of(deltas), per_model(threshold, deltas), rows_of(out))
    return out


def elect(stack: Array, weight: Any) -> Array:
    """See plait.ops.elect."""
    out = like(stack.shape[1:], stack)
    elementwise.elect(rows_of(stack), per_model(weight, stack), out.reshape(-1))
    return out


def agreeing_sum(stack: Array, sign: Array, weight: Any) -> Array:
    """See plait.ops.agreeing_sum."""
    out = like(stack.shape[1:], stack)
    elected = plain(sign, stack, stack.shape[1:])
    elementwise.agreeing_sum(rows_of(stack), elected, per_model(weight, stack), out.reshape(-1))
    return out


def agreeing_mean(stack: Array, sign: Array, weight: Any) -> Array:
    """See plait.ops.agreeing_mean."""
    out = like(stack.shape[1:], stack)
    elected = plain(sign, stack, stack.shape[1:])
    divisor = like((elementwise.PIECE,), stack)
    elementwise.agreeing_mean(rows_of(stack), elected, per_model(weight, stack), divisor, out.reshape(-1))
    return out


def drop(deltas: Array, density: Any, rng: Rng) -> Array:
    """See plait.ops.drop."""
    out = like(deltas.shape, deltas)
    rows, density = rows_of(deltas), np.asarray(density)
    if rng.keys.size != len(rows):
        raise ValueError(f"one key per model: {len(rows)} models, but {rng.keys.size} keys")
    keys = np.stack([rng.keys & np.uint64(0xFFFFFFFF), rng.keys >> np.uint64(32)], axis=1).astype(np.uint32)
    if density.shape != deltas.shape or density.size == len(rows):
        elementwise.drop(rows, keep_limits(density, len(rows)), keys, rng.start, rows_of(out))
        return out
    each = rows_of(density.astype(np.float32, copy=False))  # as densities for whole models are
    if not elementwise.drop_each(rows, each, keys, rng.start, rows_of(out)):
        raise ValueError(f"a density is the fraction kept, in [0, 1]; got {first_outside(density)}")
    return out


def largest(deltas: Array) -> Array:
    """See plait.ops.largest."""
    out = like(deltas.shape[1:], deltas)
    elementwise.largest(rows_of(deltas), out.reshape(-1))
    return out


def clamp(x: Array, low: float, high: float) -> Array:
    """See plait.ops.clamp."""
    if not low <= high:
        raise ValueError(f"clamp needs low <= high, not {low} and {high}")
    out = like(x.shape, x)
    number = x.dtype.type
    elementwise.clamp(flat_of(x), number(low), number(high), out.reshape(-1))
    return out


def scale(x: Array, factor: Any) -> Array:
    """See plait.ops.scale."""
    out = like(x.shape, x)
    factor = np.asarray(factor, x.dtype)
    rows = rows_of(x) if factor.size > 1 else rows_of(x.reshape(1, -1))
    elementwise.scale(rows, per_model(factor, rows), out.reshape(rows.shape))
    return out


def add(x: Array, y: Array) -> Array:
    """See plait.ops.add."""
    out = like(x.shape, x)
    elementwise.add(flat_of(x), plain(y, x, x.shape), out.reshape(-1))
    return out


def subtract(stack: Array, base: Array) -> Array:
    """See plait.ops.subtract."""
    out = like(stack.shape, stack)
    elementwise.subtract(rows_of(stack), plain(base, stack, stack.shape[1:]), rows_of(out))
    return out


def gram_blocks(stack: Array) -> Array:
    """See plait.ops.gram_blocks."""
    rows = rows_of(stack)
    models, size = rows.shape
    out = empty((-(-size // blocks.BLOCK), models * (models + 1) // 2), np.float64)
    blocks.gram_blocks(rows, np.empty(blocks.LANES), out)
    return out


def abs_sum_blocks(stack: Array) -> Array:
    """See plait.ops.abs_sum_blocks."""
    rows = rows_of(stack)
    out = empty((-(-rows.shape[1] // blocks.BLOCK), rows.shape[0]), np.float64)
    blocks.abs_sum_blocks(rows, np.empty(blocks.LANES), out)
    return out


def _bits(x: Array) -> Array:
    if x.dtype != np.float32:
        raise TypeError(f"magnitudes are selected by the bits of float32, not of {x.dtype}")
    return np.ascontiguousarray(x).reshape(-1).view(np.int32)


def magnitude_bits(x: Array) -> Array:
    """See plait.ops.magnitude.magnitude_bits."""
    bits = empty(x.shape, np.int32)
    np.bitwise_and(_bits(x), np.int32(0x7FFFFFFF), out=bits.reshape(-1))
    return bits


def histogram_high(x: Array, counts: Array) -> None:
    """See plait.ops.magnitude.histogram_high."""
    blocks.histogram_high(_bits(x), counts)


def histogram_low(x: Array, high: int, counts: Array) -> None:
    """See plait.ops.magnitude.histogram_low."""
    blocks.histogram_low(_bits(x), high, counts)


def window_count(x: Array, low_bits: int, counts: Array) -> int:
    """See plait.ops.magnitude.window_count."""
    return int(blocks.window_count(_bits(x), low_bits, counts))


def _read_as(raw: Array, dtype: Any, size: int) -> Array:
    view: Array = raw.view(dtype)
    if view.shape != (size,):
        raise ValueError(f"{raw.size} bytes do not hold {size} elements of {view.itemsize} bytes")
    return view


def decode(raw: Array, code: str, base: Array | None, out: Array) -> bool:
    """See plait.ops.codec.decode."""
    dtype, kernel = codec.DECODERS[code]
    flat = flat_of(out)
    if not out.flags.c_contiguous:
        raise ValueError("decode writes into C-contiguous arrays")
    return bool(kernel(_read_as(raw, dtype, flat.size), None if base is None else plain(base, out, out.shape), flat))


def encode(values: Array, code: str, base: Array | None, raw: Array) -> bool:
    """See plait.ops.codec.encode."""
    dtype, kernel = codec.ENCODERS[code]
    flat = flat_of(values)
    added = None if base is None else plain(base, values, values.shape)
    return bool(kernel(flat, added, _read_as(raw, dtype, flat.size)))
