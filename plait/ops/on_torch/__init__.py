"""The ops for torch tensors, on any device and under autograd: the same roundings in the same order.

One torch call per rounding, none that fuses or reorders (no addcmul, einsum or sum), nothing in place on an input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from plait.ops.on_torch.blocks import (
    abs_sum_blocks,
    gram_blocks,
    histogram_high,
    histogram_low,
    magnitude_bits,
    window_count,
)
from plait.ops.on_torch.codec import decode, encode
from plait.ops.on_torch.entries import exp, maximum, median, minimum, sign, sqrt, stacked, tanh, where
from plait.ops.on_torch.last_axis import keep_of_each, ranks, row_norm, row_sum, softmax_sums
from plait.ops.on_torch.ranked import drop_ranked
from plait.ops.on_torch.rows import gram_of_rows, weighted_rows
from plait.ops.on_torch.shapes import check, check_stack, per_model, plain, zero_of
from plait.ops.on_torch.sums import ordered_bits, sum_blocks
from plait.ops.rng import Rng, first_outside, keep_limits

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

LOW_WORD = 0xFFFFFFFF


def weighted_sum(stack: Any, weight: Any) -> Any:
    """See plait.ops.weighted_sum."""
    check_stack(stack)
    each = per_model(weight, stack)
    total = each[0] * stack[0]
    for w, x in zip(each[1:], stack[1:], strict=True):
        total = total + w * x
    return total


def trim(deltas: Any, threshold: Any) -> Any:
    """See plait.ops.trim."""
    check_stack(deltas)
    return torch.where(deltas.abs() >= per_model(threshold, deltas), deltas, zero_of(deltas))


def elect(stack: Any, weight: Any) -> Any:
    """See plait.ops.elect."""
    total = weighted_sum(stack, weight)
    one = torch.ones((), dtype=stack.dtype, device=stack.device)
    return torch.where(total >= 0, one, -one)


def _agreeing(stack: Any, sign: Any, weight: Any) -> tuple[Any, Any]:
    """The sum of the agreeing votes, and of their weights."""
    check_stack(stack)
    sign = plain(sign, stack, stack.shape[1:])
    zero = zero_of(stack)
    total, share = torch.zeros_like(stack[0]), torch.zeros_like(stack[0])
    for w, x in zip(per_model(weight, stack), stack, strict=True):
        vote = w * x
        agrees = vote * sign > 0
        total = total + torch.where(agrees, vote, zero)
        share = share + torch.where(agrees, w, zero)
    return total, share


def agreeing_sum(stack: Any, sign: Any, weight: Any) -> Any:
    """See plait.ops.agreeing_sum."""
    return _agreeing(stack, sign, weight)[0]


def agreeing_mean(stack: Any, sign: Any, weight: Any) -> Any:
    """See plait.ops.agreeing_mean."""
    total, share = _agreeing(stack, sign, weight)
    some = share != 0
    divisor = torch.where(some, share, torch.ones_like(share))  # so that no gradient is 0/0
    return torch.where(some, total / divisor, zero_of(stack))


def mix(x: Any) -> Any:
    """Wellons' lowbias32 on int64 tensors that hold 32-bit numbers; products may wrap, their low words are right."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & LOW_WORD
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & LOW_WORD
    return x ^ (x >> 16)


def _random_bits(rng: Rng, count: int, device: Any) -> Any:
    """int64 `[k, count]`, each below 2^32: see plait.ops.rng."""
    index = torch.arange(rng.start, rng.start + count, dtype=torch.int64, device=device)
    low, high = index & LOW_WORD, index >> 32
    low_key = torch.as_tensor((rng.keys & np.uint64(LOW_WORD)).astype(np.int64), device=device)[:, None]
    high_key = torch.as_tensor((rng.keys >> np.uint64(32)).astype(np.int64), device=device)[:, None]
    return mix(mix(low ^ low_key ^ mix(high)) ^ high_key ^ mix(high ^ 0x9E3779B9))


def _limits(density: Any, deltas: Any) -> Any:
    """What an entry's random bits must lie below, `[k, 1]` or `[k, n]`, int64."""
    k = len(deltas)
    if np.shape(density) != deltas.shape or deltas.numel() == k:
        density = density.detach().cpu().numpy() if isinstance(density, torch.Tensor) else density
        return torch.as_tensor(keep_limits(density, k), device=deltas.device)[:, None]
    each = torch.as_tensor(density, dtype=torch.float32, device=deltas.device).detach().to(torch.float64)
    if not ((each >= 0) & (each <= 1)).all():
        raise ValueError(f"a density is the fraction kept, in [0, 1]; got {first_outside(each.cpu().numpy())}")
    return (each * 2.0**32).to(torch.int64).reshape(k, -1)


def drop(deltas: Any, density: Any, rng: Rng) -> Any:
    """See plait.ops.drop."""
    check_stack(deltas)
    if rng.keys.size != len(deltas):
        raise ValueError(f"one key per model: {len(deltas)} models, but {rng.keys.size} keys")
    kept = _random_bits(rng, deltas[0].numel(), deltas.device) < _limits(density, deltas)
    return torch.where(kept.reshape(deltas.shape), deltas, zero_of(deltas))


def largest(deltas: Any) -> Any:
    """See plait.ops.largest."""
    check_stack(deltas)
    best = deltas[0] + 0.0  # -0 and +0 tie: the positive one wins
    for x in deltas[1:]:
        size = x.abs()
        best = torch.where((size > best) & (size >= -best), x, best)
    return best


def clamp(x: Any, low: float, high: float) -> Any:
    """See plait.ops.clamp."""
    check(x)
    if not low <= high:
        raise ValueError(f"clamp needs low <= high, not {low} and {high}")
    least = torch.as_tensor(low, dtype=x.dtype, device=x.device)
    most = torch.as_tensor(high, dtype=x.dtype, device=x.device)
    raised = torch.where(x < least, least, x)
    return torch.where(raised > most, most, raised)


def scale(x: Any, factor: Any) -> Any:
    """See plait.ops.scale."""
    check(x)
    by = torch.as_tensor(factor, dtype=x.dtype, device=x.device)
    return (by.reshape(()) if by.numel() == 1 else per_model(by, x)) * x


def add(x: Any, y: Any) -> Any:
    """See plait.ops.add."""
    check(x)
    return x + plain(y, x, x.shape)


def subtract(stack: Any, base: Any) -> Any:
    """See plait.ops.subtract."""
    check_stack(stack)
    return stack - plain(base, stack, stack.shape[1:])
