"""The loops in which an adapter's product is added to its base.

Every entry is one sum over the rank, in order and rounded as written, so it is the same wherever a tile begins. Compiled by
Numba, see `plait.checkpoint.loops`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from plait.ops.on_cpu.jit import kernel

__all__ = ["add_product_run", "column_squares_run", "divide_rows_run", "scale_columns_run"]

_EIGHT = 8  # rows whose squares are added up side by side: each sum waits for its last addition


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
def add_product_run(values: Any, start: int, left: Any, right: Any, scaling: Any, total: Any) -> Any:
    """Add scaling * (left @ right) to `values`, which holds the product's entries from `start` on, row by row.

    `left` is `[rows, rank]`, `right` `[rank, columns]`, `scaling` `[1]`, all of one float type; `total` is room for as
    many columns as keep the rows of `right` in the cache while all rows pass.
    """
    rank, columns = right.shape
    stop = start + len(values)
    for begin in range(0, columns, len(total)):
        for row in range(start // columns, (stop + columns - 1) // columns):
            low = max(begin, start - row * columns)
            high = min(begin + len(total), columns, stop - row * columns)
            if low >= high:
                continue
            count = high - low
            here = total[:count]
            for j in range(count):
                here[j] = 0
            # Slices, whose indices start at 0: only so are the loops vectorised.
            for k in range(0, rank - 3, 4):
                _add_four(here, left[row, k : k + 4], right[k : k + 4], low, high)
            for k in range(rank - rank % 4, rank):
                _add_scaled(here, left[row, k], right[k][low:high])
            offset = row * columns + low - start
            _add_scaled(values[offset : offset + count], scaling[0], here)
    return np.int64(0)


@kernel
def _squares(row: Any) -> float:
    total = 0.0
    for j in range(len(row)):
        total += np.float64(row[j]) * np.float64(row[j])
    return total


@kernel
def _eight_squares(rows: Any, columns: int, out: Any) -> None:
    """As `_squares`, of eight rows: the same additions in the same order for each."""
    a, b, c, d, e, f, g, h = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(columns):
        a += np.float64(rows[j]) * np.float64(rows[j])
        b += np.float64(rows[columns + j]) * np.float64(rows[columns + j])
        c += np.float64(rows[2 * columns + j]) * np.float64(rows[2 * columns + j])
        d += np.float64(rows[3 * columns + j]) * np.float64(rows[3 * columns + j])
        e += np.float64(rows[4 * columns + j]) * np.float64(rows[4 * columns + j])
        f += np.float64(rows[5 * columns + j]) * np.float64(rows[5 * columns + j])
        g += np.float64(rows[6 * columns + j]) * np.float64(rows[6 * columns + j])
        h += np.float64(rows[7 * columns + j]) * np.float64(rows[7 * columns + j])
    out[0], out[1], out[2], out[3], out[4], out[5], out[6], out[7] = a, b, c, d, e, f, g, h


@kernel
def divide_rows_run(values: Any, columns: int, magnitude: Any, squares: Any) -> Any:
    """Give every row of `values` `[rows * columns]` the length that `magnitude` `[rows]` says (DoRA); `squares` is `[8]`."""
    rows = len(magnitude)
    for top in range(0, rows, _EIGHT):
        count = min(_EIGHT, rows - top)
        if count == _EIGHT:
            _eight_squares(values[top * columns : (top + count) * columns], columns, squares)
        else:
            for i in range(count):
                squares[i] = _squares(values[(top + i) * columns : (top + i + 1) * columns])
        for i in range(count):
            factor = magnitude[top + i] / magnitude.dtype.type(np.sqrt(squares[i]))
            line = values[(top + i) * columns : (top + i + 1) * columns]
            for j in range(columns):
                line[j] = factor * line[j]
    return np.int64(0)


@kernel
def column_squares_run(values: Any, out: Any) -> Any:
    """Add the squares of whole rows, `values` `[rows * columns]`, to `out` `[columns]`, float64."""
    columns = len(out)
    for row in range(len(values) // columns):
        line = values[row * columns : (row + 1) * columns]
        for j in range(columns):
            value = np.float64(line[j])
            out[j] += value * value
    return np.int64(0)


@kernel
def scale_columns_run(values: Any, start: int, factor: Any) -> Any:
    """Multiply entry `start` + i of a tensor, `values[i]`, by `factor` `[columns]` of its column."""
    columns = len(factor)
    done = 0
    while done < len(values):
        column = (start + done) % columns
        count = min(columns - column, len(values) - done)
        line, numbers = values[done : done + count], factor[column : column + count]
        for j in range(count):
            line[j] = numbers[j] * line[j]
        done += count
    return done
