"""Dot products and weighted sums row by row; see plait.ops.rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from plait.ops.on_cpu.blocks import LANES, dot
from plait.ops.on_cpu.jit import kernel
from plait.ops.scratch import empty

__all__ = ["gram_of_rows", "weighted_rows"]

Array = npt.NDArray[Any]


@kernel
def _grams(stack: Any, lanes: Any, out: Any) -> None:
    for row in range(stack.shape[1]):
        for i in range(stack.shape[0]):
            for j in range(i, stack.shape[0]):
                value = dot(stack[i, row], stack[j, row], lanes)
                out[row, i, j] = value
                out[row, j, i] = value


@kernel
def _add_up(stack: Any, weight: Any, out: Any) -> None:
    for row in range(stack.shape[1]):
        for j in range(stack.shape[2]):
            total = weight[row, 0] * stack[0, row, j]
            for i in range(1, stack.shape[0]):
                total = total + weight[row, i] * stack[i, row, j]
            out[row, j] = total


def _checked(stack: Array) -> Array:
    if stack.dtype not in {np.dtype(np.float32), np.dtype(np.float64)}:
        raise TypeError(f"ops compute in float32 or float64, not in {stack.dtype}")
    if stack.ndim != 3 or stack.shape[0] == 0:
        raise ValueError(f"a stack of rows is [k, rows, columns], not {list(stack.shape)}")
    return np.ascontiguousarray(stack)


def gram_of_rows(stack: Array) -> Array:
    """See plait.ops.gram_of_rows."""
    rows = _checked(stack)
    out = np.empty((rows.shape[1], len(rows), len(rows)))
    _grams(rows, np.empty(LANES), out)
    return out


def weighted_rows(stack: Array, weight: Array) -> Array:
    """See plait.ops.weighted_rows."""
    rows = _checked(stack)
    if weight.shape != (rows.shape[1], len(rows)):
        raise ValueError(f"weights are [rows, k] = {[rows.shape[1], len(rows)]}, not {list(weight.shape)}")
    out = empty(rows.shape[1:], rows.dtype)
    _add_up(rows, np.ascontiguousarray(weight, rows.dtype), out)
    return out
