"""plait.ops.entries for torch tensors; see plait.ops.on_cpu.entries and plait.ops.on_cpu.exponential."""

from __future__ import annotations

import math
from typing import Any

import torch

from plait.ops.on_torch import roots
from plait.ops.on_torch.shapes import broadcast, check, check_shapes, check_stack, common_dtype, zero_of

__all__ = ["exp", "maximum", "median", "minimum", "sign", "sqrt", "stacked", "tanh", "where"]

LOG2E = 1 / math.log(2)
LN2_HIGH, LN2_LOW = float.fromhex("0x1.62e42fep-1"), float.fromhex("0x1.f473de6af278fp-30")
ROUND = 1.5 * 2.0**52
ROUND_BITS = 0x4338000000000000


def where(condition: Any, x: Any, y: Any) -> Any:
    """See plait.ops.where."""
    if not isinstance(condition, torch.Tensor):
        beside = next((value for value in (x, y) if isinstance(value, torch.Tensor)), None)
        check(beside if beside is not None else condition)
        condition = torch.as_tensor(condition, device=None if beside is None else beside.device)
    if condition.dtype != torch.bool:
        raise TypeError(f"a condition is an array of bool, not of {condition.dtype}")
    dtype = common_dtype(x, y)
    x, y = (torch.as_tensor(value, dtype=dtype, device=condition.device) for value in (x, y))
    check_shapes(condition, x, y)
    return torch.where(condition, x, y)


def minimum(x: Any, y: Any) -> Any:
    """See plait.ops.minimum."""
    x, y = broadcast(x, y)
    return torch.where(y < x, y, x) + zero_of(x)  # zeros come out as +0, whichever was first


def maximum(x: Any, y: Any) -> Any:
    """See plait.ops.maximum."""
    x, y = broadcast(x, y)
    return torch.where(y > x, y, x) + zero_of(x)


def sign(x: Any) -> Any:
    """See plait.ops.sign."""
    check(x)
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


def sqrt(x: Any) -> Any:
    """See plait.ops.sqrt."""
    check(x)
    return roots.sqrt(x)


def stacked(*arrays: Any) -> Any:
    """See plait.ops.stacked."""
    tensors = broadcast(*arrays)
    for x in tensors:
        if x.shape != tensors[0].shape:
            told = f"{list(tensors[0].shape)} and {list(x.shape)}"
            raise ValueError(f"only arrays of one shape can be stacked, not {told}")
    return torch.stack(tensors)


def median(stack: Any) -> Any:
    """See plait.ops.median."""
    check_stack(stack)
    k = stack.shape[0]
    ordered = stack.sort(dim=0).values
    first, second = ordered[(k - 1) // 2], ordered[k // 2]
    middle = first if k % 2 else (first + second) * 0.5
    return middle + zero_of(stack)


def _exponent(x: Any) -> tuple[Any, Any]:
    """The integer nearest x / ln 2, as float64 and as an integer."""
    shifted = x.detach() * LOG2E + ROUND
    return shifted - ROUND, shifted.view(torch.int64) - ROUND_BITS


def _power_of_two(n: Any) -> Any:
    return ((n + 1023) << 52).view(torch.float64)


def _less_one(r: Any) -> Any:
    """e^r - 1 for |r| up to ln(2) / 2."""
    q = torch.full_like(r, 1 / math.factorial(13))
    for degree in range(12, 1, -1):
        q = q * r + 1 / math.factorial(degree)
    return q * (r * r) + r


def exp(x: Any) -> Any:
    """See plait.ops.exp."""
    check(x)
    v = x.to(torch.float64)
    v = torch.where(v > 1000, 1000.0, v)
    v = torch.where(v < -1000, -1000.0, v)
    whole, n = _exponent(v)
    r = (v - whole * LN2_HIGH) - whole * LN2_LOW
    half = n >> 1
    return ((_less_one(r) + 1) * _power_of_two(half) * _power_of_two(n - half)).to(x.dtype)


def tanh(x: Any) -> Any:
    """See plait.ops.tanh."""
    check(x)
    v = x.to(torch.float64)
    side = torch.where(v < 0, -1.0, 1.0).to(torch.float64)
    v = side * v
    v = torch.where(v > 20, 20.0, v)
    v = v + v
    whole, n = _exponent(v)
    r = (v - whole * LN2_HIGH) - whole * LN2_LOW
    power = _power_of_two(n)
    less_one = power * _less_one(r) + (power - 1)
    return (side * (less_one / (less_one + 2))).to(x.dtype)
