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
def _add_scaled(total: Any, factor: Any, numbers: Any) -> None:
    for j in range(len(total)):
        total[j] = total[j] + factor * numbers[j]


@kernel
def _add_four(total: Any, factors: Any, rows: Any, low: int, high: int) -> None:
    a, b, c, d = factors[0], factors[1], factors[2], factors[3]
    first, second, third, fourth = rows[0][low:high], rows[1][low:high], rows[2][low:high], rows[3][low:high]
    for j in range(len(total)):
        value = total[j] + a * first[j]
        value = value + b * second[j]
        value = value + c * third[j]
        total[j] = value + d * fourth[j]


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
            here = total[:count]
            here[:] = 0
            # Slices, whose indices start at 0: only so are the loops vectorised.
            for k in range(0, rank - 3, 4):
                _add_four(here, left[row, k : k + 4], right[k : k + 4], low, high)
            for k in range(rank - rank % 4, rank):
                _add_scaled(here, left[row, k], right[k][low:high])
            offset = row * columns + low - start
            _add_scaled(values[offset : offset + count], scaling, here)


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
