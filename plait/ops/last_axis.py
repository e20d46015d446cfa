"""Ops along the last axis: of a stack `[k, rows, columns]`, row by row."""

from __future__ import annotations

import numpy as np

from plait.ops.sides import Array, side

__all__ = ["keep_of_each", "ranks", "row_divergence", "row_norm", "row_sum"]

Whole = int | np.integer


def row_sum(x: Array) -> Array:
    """Add up each row. `[…, columns]` -> `[…, 1]`.

    In float64, by blocks of 4096 entries, each block's sum in the order of `plait.ops.gram_blocks`, and the blocks in
    turn; rounded once, to the dtype of x.

    >>> row_sum(np.array([[1.0, 2.0], [3.0, -4.0]]))
    array([[ 3.],
           [-1.]])
    """
    return side(x).row_sum(x)


def row_norm(x: Array) -> Array:
    """Take each row's Euclidean length. `[…, columns]` -> `[…, 1]`.

    Squares are added as in `row_sum`; that they are float64, too, keeps those of small float32 entries from vanishing.

    >>> row_norm(np.array([[3.0, -4.0], [0.0, 0.0]]))
    array([[5.],
           [0.]])
    """
    return side(x).row_norm(x)


def row_divergence(x: Array, y: Array) -> Array:
    """Take, row by row, the Kullback-Leibler divergence of softmax(x) from softmax(y). Two `[…, columns]` -> `[…, 1]`.

    Σ pⱼ (xⱼ − yⱼ) − log Σ e^xⱼ + log Σ e^yⱼ with p = softmax(x), in float64 with the sums of `row_sum`; rounded once, to
    the dtype of x. A row shifted as a whole has no divergence.

    >>> row_divergence(np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([[5.0, 5.0], [2.0, 1.0]])).round(6)
    array([[0.      ],
           [0.462117]])
    """
    top, total = side(x, y).softmax_sums(x, y)  # `[…, 2]`, `[…, 3]`
    with np.errstate(all="ignore"):  # of rows that are not finite, nothing is
        logs = top[..., 0] - top[..., 1] + np.log(total[..., 0] / total[..., 1])
        found = (total[..., 2] / total[..., 0] - logs)[..., None]
    return found.astype(x.dtype) if isinstance(x, np.ndarray) else x.new_tensor(found)


def ranks(x: Array) -> Array:
    """Count, for each entry, those of its row that have a smaller magnitude. `[…, columns]` -> the same shape and dtype.

    Of equal magnitudes an earlier one counts as the smaller: so each row has the ranks 0, 1, … columns - 1, rounded
    to the dtype of x (float32 has every integer up to 2^24).

    >>> ranks(np.array([[0.5, -3.0, 1.0, -0.5]]))
    array([[0., 3., 2., 1.]])
    """
    return side(x).ranks(x)


def keep_of_each(deltas: Array, n: Whole, m: Whole) -> Array:
    """Keep the n largest magnitudes of each m consecutive entries of a row; the others become 0. Any shape with an axis.

    Of equal magnitudes the earlier is kept. Where m does not divide the columns, the last group is short, and n of it
    are kept, or all.

    Raises:
        ValueError: not 0 <= n <= m, or m is 0.

    >>> keep_of_each(np.array([[1.0, -4.0, 3.0, 2.0, 1.0]]), 1, 2)
    array([[ 0., -4.,  3.,  0.,  1.]])
    """
    if not 0 <= n <= m or m == 0:
        raise ValueError(f"n of each m entries are kept, 0 <= n <= m and m at least 1; got n = {n}, m = {m}")
    return side(deltas).keep_of_each(deltas, int(n), int(m))
