"""The ops for numpy arrays: shapes and dtypes settled here, the arithmetic in Numba kernels.

Results come from `plait.ops.scratch.empty`. Kernels are compiled at first use, once per dtype, and cached
on disk. A read-only or unaligned input is another type to Numba and costs another compilation.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from plait.ops.on_cpu import blocks, codec, elementwise
from plait.ops.on_cpu.rows import gram_of_rows, weighted_rows
from plait.ops.on_cpu.sums import ordered_bits, sum_blocks
from plait.ops.rng import Rng, keep_limits
from plait.ops.scratch import empty

__all__ = [
    "abs_sum_blocks",
    "add",
    "agreeing_mean",
    "agreeing_sum",
    "clamp",
    "decode",
    "drop",
    "elect",
    "encode",
    "gram_blocks",
    "gram_of_rows",
    "histogram_high",
    "histogram_low",
    "largest",
    "magnitude_bits",
    "ordered_bits",
    "scale",
    "subtract",
    "sum_blocks",
    "trim",
    "weighted_rows",
    "weighted_sum",
    "window_count",
]

Array = npt.NDArray[Any]
FLOATS = frozenset({np.dtype(np.float32), np.dtype(np.float64)})


def _like(shape: tuple[int, ...], stack: Array) -> Array:
    return empty(shape, stack.dtype)


def _rows(stack: Array) -> Array:
    """A stack as the kernels take it: `[k, n]`, C-contiguous; a copy only if it was not."""
    if stack.dtype not in FLOATS:
        raise TypeError(f"ops compute in float32 or float64, not in {stack.dtype}")
    if stack.ndim == 0 or stack.shape[0] == 0:
        raise ValueError(f"a stack is [k, *shape] with at least one model, not {list(stack.shape)}")
    return np.ascontiguousarray(stack).reshape(stack.shape[0], math.prod(stack.shape[1:]))


def _flat(x: Array) -> Array:
    """Floats of any shape as `[n]`; a copy only if they were not C-contiguous."""
    if x.dtype not in FLOATS:
        raise TypeError(f"ops compute in float32 or float64, not in {x.dtype}")
    return np.ascontiguousarray(x).reshape(-1)


def _plain(x: Any, like: Array, shape: tuple[int, ...]) -> Array:
    """One array that goes with a stack (a base, a sign), flat and in the stack's dtype."""
    x = np.ascontiguousarray(x, like.dtype).reshape(np.shape(x))
    if x.shape != shape:
        raise ValueError(f"this array is [*shape] = {list(shape)} beside such a stack, not {list(x.shape)}")
    flat: Array = x.reshape(-1)
    return flat


def _per_model(number: Any, stack: Array) -> Array:
    """Numbers `[k, 1, …, 1]` as `[k]` in the stack's dtype."""
    each = np.asarray(number, stack.dtype).reshape(-1)
    if each.size != stack.shape[0]:
        raise ValueError(f"one number per model: {stack.shape[0]} models, but {each.size} numbers")
    return each


def weighted_sum(stack: Array, weight: Any) -> Array:
    """See plait.ops.weighted_sum."""
    out = _like(stack.shape[1:], stack)
    elementwise.weighted_sum(_rows(stack), _per_model(weight, stack), out.reshape(-1))
    return out


def trim(deltas: Array, threshold: Any) -> Array:
    """See plait.ops.trim."""
    out = _like(deltas.shape, deltas)
    elementwise.trim(_rows(deltas), _per_model(threshold, deltas), _rows(out))
    return out


def elect(stack: Array, weight: Any) -> Array:
    """See plait.ops.elect."""
    out = _like(stack.shape[1:], stack)
    elementwise.elect(_rows(stack), _per_model(weight, stack), out.reshape(-1))
    return out


def agreeing_sum(stack: Array, sign: Array, weight: Any) -> Array:
    """See plait.ops.agreeing_sum."""
    out = _like(stack.shape[1:], stack)
    elected = _plain(sign, stack, stack.shape[1:])
    elementwise.agreeing_sum(_rows(stack), elected, _per_model(weight, stack), out.reshape(-1))
    return out


def agreeing_mean(stack: Array, sign: Array, weight: Any) -> Array:
    """See plait.ops.agreeing_mean."""
    out = _like(stack.shape[1:], stack)
    elected = _plain(sign, stack, stack.shape[1:])
    divisor = _like((elementwise.PIECE,), stack)
    elementwise.agreeing_mean(_rows(stack), elected, _per_model(weight, stack), divisor, out.reshape(-1))
    return out


def drop(deltas: Array, density: Any, rng: Rng) -> Array:
    """See plait.ops.drop."""
    out = _like(deltas.shape, deltas)
    rows = _rows(deltas)
    limits = keep_limits(density, deltas.shape[0])
    if rng.keys.size != limits.size:
        raise ValueError(f"one key per model: {limits.size} models, but {rng.keys.size} keys")
    keys = np.stack([rng.keys & np.uint64(0xFFFFFFFF), rng.keys >> np.uint64(32)], axis=1).astype(np.uint32)
    elementwise.drop(rows, limits, keys, rng.start, _rows(out))
    return out


def largest(deltas: Array) -> Array:
    """See plait.ops.largest."""
    out = _like(deltas.shape[1:], deltas)
    elementwise.largest(_rows(deltas), out.reshape(-1))
    return out


def clamp(x: Array, low: float, high: float) -> Array:
    """See plait.ops.clamp."""
    if not low <= high:
        raise ValueError(f"clamp needs low <= high, not {low} and {high}")
    out = _like(x.shape, x)
    number = x.dtype.type
    elementwise.clamp(_flat(x), number(low), number(high), out.reshape(-1))
    return out


def scale(x: Array, factor: Any) -> Array:
    """See plait.ops.scale."""
    out = _like(x.shape, x)
    factor = np.asarray(factor, x.dtype)
    rows = _rows(x) if factor.size > 1 else _rows(x.reshape(1, -1))
    elementwise.scale(rows, _per_model(factor, rows), out.reshape(rows.shape))
    return out


def add(x: Array, y: Array) -> Array:
    """See plait.ops.add."""
    out = _like(x.shape, x)
    elementwise.add(_flat(x), _plain(y, x, x.shape), out.reshape(-1))
    return out


def subtract(stack: Array, base: Array) -> Array:
    """See plait.ops.subtract."""
    out = _like(stack.shape, stack)
    elementwise.subtract(_rows(stack), _plain(base, stack, stack.shape[1:]), _rows(out))
    return out


def gram_blocks(stack: Array) -> Array:
    """See plait.ops.gram_blocks."""
    rows = _rows(stack)
    models, size = rows.shape
    out = empty((-(-size // blocks.BLOCK), models * (models + 1) // 2), np.float64)
    blocks.gram_blocks(rows, np.empty(blocks.LANES), out)
    return out


def abs_sum_blocks(stack: Array) -> Array:
    """See plait.ops.abs_sum_blocks."""
    rows = _rows(stack)
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
    flat = _flat(out)
    if not out.flags.c_contiguous:
        raise ValueError("decode writes into C-contiguous arrays")
    return bool(kernel(_read_as(raw, dtype, flat.size), None if base is None else _plain(base, out, out.shape), flat))


def encode(values: Array, code: str, base: Array | None, raw: Array) -> bool:
    """See plait.ops.codec.encode."""
    dtype, kernel = codec.ENCODERS[code]
    flat = _flat(values)
    added = None if base is None else _plain(base, values, values.shape)
    return bool(kernel(flat, added, _read_as(raw, dtype, flat.size)))
