"""The loops in which an adapter's product is added to its base.

Every entry is one sum over the rank, in order and rounded as written, so it is the same wherever a tile begins.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from plait.ops.on_cpu.jit import kernel

__all__ = ["add_product", "column_squares", "divide_rows", "scale_columns"]

_BLOCK = 1024  # columns whose rows of `right` stay in the cache while all rows pass


@kernel
def add_product(values: Any, start: int, left: Any, right: Any, scaling: Any) -> None:
    """Add scaling * (left @ right) to `values`, which holds the product's entries from `start` on, row by row.

    `left` is `[rows, rank]`, `right` `[rank, columns]`, all of one float type.
    """
    rank, columns = right.shape
    stop = start + len(values)
    total = np.empty(_BLOCK, values.dtype)
    for begin in range(0, columns, _BLOCK):
        for row in range(start // columns, (stop + columns - 1) // columns):
            low = max(begin, start - row * columns)
            high = min(begin + _BLOCK, columns, stop - row * columns)
            if low >= high:
                continue
            count = high - low
            total[:count] = 0
            for k in range(0, rank - 3, 4):
                a, b, c, d = left[row, k], left[row, k + 1], left[row, k + 2], left[row, k + 3]
                for j in range(count):
                    at = low + j
                    value = total[j] + a * right[k, at]
                    value = value + b * right[k + 1, at]
                    value = value + c * right[k + 2, at]
                    total[j] = value + d * right[k + 3, at]
            for k in range(rank - rank % 4, rank):
                a = left[row, k]
                for j in range(count):
                    total[j] = total[j] + a * right[k, low + j]
            offset = row * columns + low - start
            for j in range(count):
                values[offset + j] += scaling * total[j]


@kernel
def divide_rows(values: Any, columns: int, magnitude: Any) -> None:
    """Give every row of `values` `[rows * columns]` the length that `magnitude` `[rows]` says (DoRA)."""
    for row in range(len(magnitude)):
        squares = 0.0
        for j in range(row * columns, (row + 1) * columns):
            squares += np.float64(values[j]) * np.float64(values[j])
        factor = magnitude[row] / magnitude.dtype.type(np.sqrt(squares))
        for j in range(row * columns, (row + 1) * columns):
            values[j] = factor * values[j]


@kernel
def column_squares(values: Any, out: Any) -> None:
    """Add the squares of whole rows, `values` `[rows * columns]`, to `out` `[columns]`, float64."""
    columns = len(out)
    for row in range(len(values) // columns):
        for j in range(columns):
            value = np.float64(values[row * columns + j])
            out[j] += value * value


@kernel
def scale_columns(values: Any, start: int, factor: Any) -> None:
    """Multiply entry `start` + i of a tensor, `values[i]`, by `factor` `[columns]` of its column."""
    columns = len(factor)
    for i in range(len(values)):
        values[i] = factor[(start + i) % columns] * values[i]
