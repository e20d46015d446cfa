"""Ops on whole rows for methods that treat each row as a vector of its own: its Gram matrix, and its weighted sum.

What a method makes of Gram matrices (angles, sines) it computes in numpy, in float64, whatever device the rows are
on: so `gram_of_rows` returns numpy arrays, and `weighted_rows` takes them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from plait.ops.sides import Array, side

__all__ = ["gram_of_rows", "weighted_rows"]


def gram_of_rows(stack: Array) -> npt.NDArray[np.float64]:
    """Take all dot products of the models' rows, row by row. `[k, rows, columns]` -> float64 numpy `[rows, k, k]`.

    A row's sum has one fixed order, that of a block of `plait.ops.gram_blocks`, however long the row.

    >>> gram_of_rows(np.array([[[1.0, 2.0], [0.0, 1.0]], [[3.0, 4.0], [5.0, 0.0]]]))[1]
    array([[ 1.,  0.],
           [ 0., 25.]])
    """
    gram: npt.NDArray[np.float64] = side(stack).gram_of_rows(stack)
    return gram


def weighted_rows(stack: Array, weight: npt.NDArray[np.float64]) -> Array:
    """Add up the models, each of its rows times a weight of its own. `[k, rows, columns]`, `[rows, k]` -> `[rows, columns]`.

    Weights are rounded to the stack's dtype; each product and each sum is rounded once, as in `weighted_sum`.

    >>> weighted_rows(np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), np.array([[0.5, 2.0]]))
    array([[6.5, 9. ]])
    """
    return side(stack).weighted_rows(stack, weight)
