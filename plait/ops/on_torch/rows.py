"""Dot products and weighted sums row by row, for torch; see plait.ops.rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

__all__ = ["gram_of_rows", "weighted_rows"]

LANES = 64


def _check(stack: Any) -> None:
    if stack.dtype not in {torch.float32, torch.float64}:
        raise TypeError(f"ops compute in float32 or float64, not in {stack.dtype}")
    if stack.ndim != 3 or stack.shape[0] == 0:
        raise ValueError(f"a stack of rows is [k, rows, columns], not {list(stack.shape)}")


def gram_of_rows(stack: Any) -> Any:
    """See plait.ops.gram_of_rows. Zeros that fill up the last lanes change no sum that began at +0."""
    _check(stack)
    models, count, columns = stack.shape
    wide = torch.nn.functional.pad(stack.detach().to(torch.float64), (0, -columns % LANES))
    lanes = wide.reshape(models, count, -(-columns // LANES), LANES)
    first, second = torch.triu_indices(models, models, device=stack.device)
    total = torch.zeros((len(first), count, LANES), dtype=torch.float64, device=stack.device)
    for step in range(lanes.shape[2]):
        total = total + lanes[first, :, step] * lanes[second, :, step]
    while total.shape[-1] > 1:
        half = total.shape[-1] // 2
        total = total[..., :half] + total[..., half:]
    gram = torch.zeros((count, models, models), dtype=torch.float64, device=stack.device)
    gram[:, first, second] = total[..., 0].T
    gram[:, second, first] = total[..., 0].T
    return gram.cpu().numpy()


def weighted_rows(stack: Any, weight: Any) -> Any:
    """See plait.ops.weighted_rows."""
    _check(stack)
    if weight.shape != (stack.shape[1], stack.shape[0]):
        raise ValueError(f"weights are [rows, k] = {[stack.shape[1], stack.shape[0]]}, not {list(weight.shape)}")
    each = torch.as_tensor(np.ascontiguousarray(weight), device=stack.device).to(stack.dtype)
    total = each[:, 0, None] * stack[0]
    for i in range(1, len(stack)):
        total = total + each[:, i, None] * stack[i]
    return total
