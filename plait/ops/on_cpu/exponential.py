"""exp and tanh by one polynomial in float64: plain products and sums, so that every device gives the same bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from plait.ops.on_cpu.jit import bits_of, float_of, kernel
from plait.ops.on_cpu.shapes import Array, flat_of, like

__all__ = ["exp", "exp_of", "tanh", "tanh_of"]

f64 = np.float64
u64 = np.uint64
i64 = np.int64
LOG2E = 1 / math.log(2)
LN2_HIGH = float.fromhex("0x1.62e42fep-1")  # 28 bits: its product with any n below 2^25 is exact
LN2_LOW = float.fromhex("0x1.f473de6af278fp-30")  # ln 2 less the former, from its 120-bit value
ROUND = 1.5 * 2.0**52  # added, it leaves the nearest integer in the low bits
ROUND_BITS = 0x4338000000000000
"""The bits of ROUND."""
C2, C3, C4, C5, C6, C7 = (1 / math.factorial(i) for i in range(2, 8))
C8, C9, C10, C11, C12, C13 = (1 / math.factorial(i) for i in range(8, 14))


@kernel
def _power_of_two(n: int) -> float:
    return float_of(u64(n + 1023) << u64(52))  # type: ignore[no-any-return]


@kernel
def _exponent(x: float) -> Any:
    """The integer nearest x / ln 2, as float64 and as an integer."""
    shifted = x * LOG2E + ROUND
    return shifted - ROUND, i64(bits_of(shifted)) - ROUND_BITS


@kernel
def _less_one(r: float) -> float:
    """e^r - 1 for |r| up to ln(2) / 2; the first term left out is below 2^-57 of it."""
    q = C13
    q = q * r + C12
    q = q * r + C11
    q = q * r + C10
    q = q * r + C9
    q = q * r + C8
    q = q * r + C7
    q = q * r + C6
    q = q * r + C5
    q = q * r + C4
    q = q * r + C3
    q = q * r + C2
    return q * (r * r) + r


@kernel
def exp_of(value: float) -> float:
    """e^value."""
    v = min(value, 1000.0)  # beyond both ends all is infinite or 0
    v = max(v, -1000.0)
    whole, n = _exponent(v)
    r = (v - whole * LN2_HIGH) - whole * LN2_LOW
    half = n >> 1  # in two steps, as 2^n itself may be no float64; the first is exact
    return (_less_one(r) + 1.0) * _power_of_two(half) * _power_of_two(n - half)


@kernel
def tanh_of(value: float) -> float:
    """The hyperbolic tangent."""
    side = -1.0 if value < 0 else 1.0
    v = min(side * value, 20.0)  # where it is 1
    v = v + v
    whole, n = _exponent(v)
    r = (v - whole * LN2_HIGH) - whole * LN2_LOW
    power = _power_of_two(n)
    less_one = power * _less_one(r) + (power - 1.0)
    return side * (less_one / (less_one + 2.0))


@kernel
def _exp(x: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = out.dtype.type(exp_of(f64(x[j])))


@kernel
def _tanh(x: Any, out: Any) -> None:
    for j in range(out.size):
        out[j] = out.dtype.type(tanh_of(f64(x[j])))


def exp(x: Any) -> Array:
    """See plait.ops.exp."""
    out = like(x.shape, x)
    _exp(flat_of(x), out.reshape(-1))
    return out


def tanh(x: Any) -> Array:
    """See plait.ops.tanh."""
    out = like(x.shape, x)
    _tanh(flat_of(x), out.reshape(-1))
    return out
