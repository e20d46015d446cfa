"""Sums in float64 over fixed blocks and selection by magnitude, for torch; see plait.ops.on_cpu.blocks."""

from __future__ import annotations

from typing import Any

import torch

__all__ = [
    "BLOCK",
    "LANES",
    "abs_sum_blocks",
    "fold",
    "gram_blocks",
    "histogram_high",
    "histogram_low",
    "magnitude_bits",
    "window_count",
]

BLOCK = 4096
LANES = 64


def _lanes(stack: Any) -> Any:
    """float64 `[k, blocks, steps, lanes]`; a short last block ends in zeros, which change no sum that began at +0."""
    rows = stack.reshape(stack.shape[0], -1).to(torch.float64)
    rows = torch.nn.functional.pad(rows, (0, -rows.shape[1] % BLOCK))
    return rows.reshape(rows.shape[0], rows.shape[1] // BLOCK, BLOCK // LANES, LANES)


def fold(lanes: Any) -> Any:
    """Add the upper half of the lanes to the lower half, until one is left: `[…, lanes]` -> `[…]`."""
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def gram_blocks(stack: Any) -> Any:
    """See plait.ops.gram_blocks."""
    x = _lanes(stack)
    first, second = torch.triu_indices(x.shape[0], x.shape[0], device=x.device)
    total = torch.zeros((len(first), x.shape[1], LANES), dtype=x.dtype, device=x.device)
    for step in range(BLOCK // LANES):
        total = total + x[first, :, step] * x[second, :, step]
    return fold(total).T.contiguous()


def abs_sum_blocks(stack: Any) -> Any:
    """See plait.ops.abs_sum_blocks."""
    x = _lanes(stack).abs()
    total = torch.zeros_like(x[:, :, 0])
    for step in range(BLOCK // LANES):
        total = total + x[:, :, step]
    return fold(total).T.contiguous()


def magnitude_bits(x: Any) -> Any:
    """See plait.ops.magnitude.magnitude_bits."""
    if x.dtype != torch.float32:
        raise TypeError(f"magnitudes are selected by the bits of float32, not of {x.dtype}")
    return x.detach().contiguous().view(torch.int32) & 0x7FFFFFFF


def _count(places: Any, counts: Any) -> None:
    counts += torch.bincount(places.reshape(-1), minlength=counts.numel())


def histogram_high(x: Any, counts: Any) -> None:
    """See plait.ops.magnitude.histogram_high."""
    _count(magnitude_bits(x) >> 16, counts)


def histogram_low(x: Any, high: int, counts: Any) -> None:
    """See plait.ops.magnitude.histogram_low."""
    bits = magnitude_bits(x)
    _count(bits[bits >> 16 == high] & 0xFFFF, counts)


def window_count(x: Any, low_bits: int, counts: Any) -> int:
    """See plait.ops.magnitude.window_count."""
    place = magnitude_bits(x).to(torch.int64) - low_bits
    _count(place[(place >= 0) & (place < counts.numel())], counts)
    return int((place >= counts.numel()).sum())
