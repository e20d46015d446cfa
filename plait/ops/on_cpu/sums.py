"""Sums of entries in float64 over fixed blocks of rows; and an order of the bits that is the order of the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from plait.ops.on_cpu.blocks import BLOCK, LANES
from plait.ops.on_cpu.jit import kernel
from plait.ops.scratch import empty

__all__ = ["ordered_bits", "sum_blocks"]

Array = npt.NDArray[Any]
f64 = np.float64


@kernel
def _sums(rows: Any, squared: bool, lanes: Any, out: Any) -> None:
    """`[k, rows, columns]` -> `[rows * blocks, k]`; `lanes` is room for `LANES` numbers."""
    models, count, columns = rows.shape
    blocks = out.shape[0] // max(1, count)
    for row in range(count):
        for block in range(blocks):
            low = block * BLOCK
            for i in range(models):
                for lane in range(LANES):
                    lanes[lane] = 0.0
                for start in range(low, min(low + BLOCK, columns), LANES):
                    for lane in range(min(LANES, columns - start)):
                        value = f64(rows[i, row, start + lane])
                        lanes[lane] = lanes[lane] + (value * value if squared else value)
                half = LANES // 2
                while half > 0:
                    for lane in range(half):
                        lanes[lane] = lanes[lane] + lanes[lane + half]
                    half //= 2
                out[row * blocks + block, i] = lanes[0]


def sum_blocks(stack: Array, *, squared: bool) -> Array:
    """See plait.ops.sum_blocks."""
    if stack.dtype not in {np.dtype(np.float32), np.dtype(np.float64)}:
        raise TypeError(f"ops compute in float32 or float64, not in {stack.dtype}")
    if stack.ndim < 2 or stack.shape[0] == 0:
        raise ValueError(f"a stack to be summed is [k, n] or [k, rows, columns], not {list(stack.shape)}")
    columns = stack.shape[-1]
    count = stack[0].size // columns if columns else 0
    rows = np.ascontiguousarray(stack).reshape(len(stack), count, columns)
    out = empty((count * -(-columns // BLOCK), len(stack)), np.float64)
    _sums(rows, squared, np.empty(LANES), out)
    return out


def ordered_bits(x: Array) -> Array:
    """See plait.ops.magnitude.ordered_bits."""
    if x.dtype != np.float32:
        raise TypeError(f"quantiles are selected by the bits of float32, not of {x.dtype}")
    bits = np.ascontiguousarray(x).view(np.int32)
    ordered: Array = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    return ordered
