"""Sums of entries in float64 over fixed blocks of rows, for torch; see plait.ops.on_cpu.sums."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["ordered_bits", "sum_blocks"]

BLOCK = 4096
LANES = 64


def sum_blocks(stack: Any, *, squared: bool) -> Any:
    """See plait.ops.sum_blocks."""
    if stack.dtype not in {torch.float32, torch.float64}:
        raise TypeError(f"ops compute in float32 or float64, not in {stack.dtype}")
    if stack.ndim < 2 or stack.shape[0] == 0:
        raise ValueError(f"a stack to be summed is [k, n] or [k, rows, columns], not {list(stack.shape)}")
    wide = stack.to(torch.float64)
    wide = torch.nn.functional.pad(wide, (0, -wide.shape[-1] % BLOCK))  # zeros change no sum that began at +0
    lanes = wide.reshape(len(stack), wide[0].numel() // BLOCK, BLOCK // LANES, LANES)
    total = torch.zeros_like(lanes[:, :, 0])
    for step in range(BLOCK // LANES):
        value = lanes[:, :, step]
        total = total + (value * value if squared else value)
    while total.shape[-1] > 1:
        half = total.shape[-1] // 2
        total = total[..., :half] + total[..., half:]
    return total[..., 0].T.contiguous()


def ordered_bits(x: Any) -> Any:
    """See plait.ops.magnitude.ordered_bits."""
    if x.dtype != torch.float32:
        raise TypeError(f"quantiles are selected by the bits of float32, not of {x.dtype}")
    bits = x.detach().contiguous().view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
