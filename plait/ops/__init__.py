"""Ops: the steps that methods share, for numpy arrays (Numba) and torch tensors (any device, autograd), equal bit for bit.

A stack is `[k, *shape]`, float32 or float64; `deltas` is a stack of differences from the base. Per-model
numbers come as `[k, 1, …, 1]` and are rounded to the stack's dtype. Sums run over the models in order, each
product and each sum rounded once. No op writes to its inputs; no result depends on where a tile begins. Inside
`plait.ops.scratch.tile_scope` numpy results live in a reused buffer, until the scope ends.

Ops expect finite numbers: the codec tells the engine when they are not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from plait.ops.entries import exp, maximum, median, minimum, sign, sqrt, stacked, tanh, where
from plait.ops.last_axis import keep_of_each, ranks, row_divergence, row_norm, row_sum
from plait.ops.ranked import drop_ranked
from plait.ops.rng import Rng, rng_key
from plait.ops.rows import gram_of_rows, weighted_rows
from plait.ops.scratch import tile_scope
from plait.ops.sides import Array, side
from plait.ops.sizes import BLOCK

__all__ = [
    "BLOCK",
    "Rng",
    "abs_sum_blocks",
    "add",
    "agreeing_mean",
    "agreeing_sum",
    "clamp",
    "drop",
    "drop_ranked",
    "elect",
    "exp",
    "gram_blocks",
    "gram_of",
    "gram_of_rows",
    "keep_of_each",
    "largest",
    "maximum",
    "median",
    "minimum",
    "ranks",
    "rng_key",
    "row_divergence",
    "row_norm",
    "row_sum",
    "scale",
    "sign",
    "sqrt",
    "stacked",
    "subtract",
    "sum_blocks",
    "tanh",
    "tile_scope",
    "trim",
    "weighted_rows",
    "weighted_sum",
    "where",
]


def weighted_sum(stack: Array, weight: Array) -> Array:
    """Add up the models, each times its weight. `[k, *shape]`, `[k, 1, …]` -> `[*shape]`.

    >>> weighted_sum(np.array([[1.0, -4.0], [3.0, 2.0]]), np.array([[0.5], [2.0]]))
    array([6.5, 2. ])
    """
    return side(stack).weighted_sum(stack, weight)


def trim(deltas: Array, threshold: Array) -> Array:
    """Keep the entries whose magnitude reaches the model's threshold; the others become 0. `[k, *shape]` -> `[k, *shape]`.

    >>> trim(np.array([[1.0, -4.0, 3.0]]), np.array([[3.0]]))
    array([[ 0., -4.,  3.]])
    """
    return side(deltas).trim(deltas, threshold)


def elect(stack: Array, weight: Array) -> Array:
    """Take the sign of the weighted sum: +1 or -1, a sum of zero being +1. `[k, *shape]` -> `[*shape]`.

    The sign election of TIES (Yadav et al. 2023, https://arxiv.org/abs/2306.01708).

    >>> elect(np.array([[1.0, -4.0, 1.0], [-3.0, 2.0, -1.0]]), np.array([[1.0], [1.0]]))
    array([-1., -1.,  1.])
    """
    return side(stack).elect(stack, weight)


def agreeing_sum(stack: Array, sign: Array, weight: Array) -> Array:
    """Add up weight * entry where that product has the elected sign. `[k, *shape]`, `[*shape]` -> `[*shape]`.

    >>> agreeing_sum(np.array([[1.0, -4.0], [3.0, 2.0]]), np.array([1.0, -1.0]), np.array([[1.0], [0.5]]))
    array([ 2.5, -4. ])
    """
    return side(stack).agreeing_sum(stack, sign, weight)


def agreeing_mean(stack: Array, sign: Array, weight: Array) -> Array:
    """Divide the agreeing sum by the weights that took part in it. `[k, *shape]`, `[*shape]` -> `[*shape]`.

    0 where none took part, or where their weights cancel. The disjoint merge of TIES (Yadav et al. 2023) when all
    weights are 1.

    >>> agreeing_mean(np.array([[1.0, -4.0, 0.0], [4.0, 2.0, -1.0]]), np.array([1.0, -1.0, 1.0]), np.array([[1.0], [0.5]]))
    array([ 2., -4.,  0.])
    """
    return side(stack).agreeing_mean(stack, sign, weight)


def drop(deltas: Array, density: Array, rng: Rng) -> Array:
    """Zero each entry with probability 1 - density, and rescale nothing. `[k, *shape]` -> `[k, *shape]`.

    The random drop of DARE (Yu et al. 2024, https://arxiv.org/abs/2311.03099). Whether element j of the
    tile of model i stays depends on `rng.keys[i]`, `rng.start + j` and the density alone: see `plait.ops.rng`. A
    larger density keeps all that a smaller one keeps.

    Args:
        deltas: a tile's stack.
        density: one number per model, `[k, 1, …]`; or one per entry, of the stack's own shape. In [0, 1].
        rng: at the tile's first element.

    Raises:
        ValueError: another number of densities, or one outside [0, 1].

    >>> drop(np.ones((2, 4)), np.array([[0.5], [1.0]]), Rng(np.array([1, 2], np.uint64)))
    array([[0., 0., 0., 1.],
           [1., 1., 1., 1.]])
    """
    return side(deltas).drop(deltas, density, rng)


def largest(deltas: Array) -> Array:
    """Take, entry by entry, the delta of greatest magnitude. `[k, *shape]` -> `[*shape]`.

    Of equal magnitudes the positive one, so that the order of the models does not matter.

    >>> largest(np.array([[1.0, -4.0, -2.0], [-3.0, 3.0, 2.0]]))
    array([-3., -4.,  2.])
    """
    return side(deltas).largest(deltas)


def clamp(x: Array, low: float, high: float) -> Array:
    """Raise what is below `low` to it, and lower what is above `high`. Any shape.

    >>> clamp(np.array([-2.0, 0.5, 2.0]), -1.0, 1.0)
    array([-1. ,  0.5,  1. ])
    """
    return side(x).clamp(x, low, high)


def scale(x: Array, factor: Any) -> Array:
    """Multiply by one number, or a stack by one number per model (`[k, 1, …, 1]`). Any shape.

    >>> scale(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[2.0], [0.5]]))
    array([[2. , 4. ],
           [1.5, 2. ]])
    """
    return side(x).scale(x, factor)


def add(x: Array, y: Array) -> Array:
    """Add two arrays of one shape.

    >>> add(np.array([1.0, 2.0]), np.array([0.5, -2.0]))
    array([1.5, 0. ])
    """
    return side(x).add(x, y)


def subtract(stack: Array, base: Array) -> Array:
    """Take the base from every model. `[k, *shape]`, `[*shape]` -> `[k, *shape]`.

    >>> subtract(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1.0, 1.0]))
    array([[0., 1.],
           [2., 3.]])
    """
    return side(stack).subtract(stack, base)


def gram_blocks(stack: Array, start: int = 0) -> Array:
    """Dot products of all pairs of models, one row per block of `BLOCK` elements. -> float64 `[blocks, k(k+1)/2]`.

    Pairs run (0,0), (0,1), … (0,k-1), (1,1), … A block's sum has one fixed order: 64 lanes, element l going to
    lane l mod 64, each lane summed in turn, then the upper half of the lanes added to the lower half until one is
    left. So the rows of a tensor are the same however it is cut, and `gram_of` them all is too.

    Args:
        stack: a tile `[k, *shape]`; its last block may be short.
        start: index of the tile's first element in its tensor, a multiple of `BLOCK`.

    >>> gram_blocks(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[ 5., 11., 25.]])
    """
    _check_start(start)
    return side(stack).gram_blocks(stack)


def abs_sum_blocks(stack: Array, start: int = 0) -> Array:
    """Sums of magnitudes, one row per block of `BLOCK` elements, summed as in `gram_blocks`. -> float64 `[blocks, k]`.

    >>> abs_sum_blocks(np.array([[1.0, -2.0], [3.0, 4.0]]))
    array([[3., 7.]])
    """
    _check_start(start)
    return side(stack).abs_sum_blocks(stack)


def sum_blocks(stack: Array, start: int = 0, *, squared: bool = False) -> Array:
    """Sums of entries, or of their squares, one row per block of `BLOCK` elements. -> float64 `[blocks, k]`.

    A block's sum has the order of `gram_blocks`. Of a stack `[k, …, rows, columns]` every row is cut into blocks of its
    own, so that `start` matters only for `[k, n]`.

    >>> sum_blocks(np.array([[1.0, -2.0], [3.0, 4.0]])), sum_blocks(np.array([[1.0, -2.0]]), squared=True)
    (array([[-1.,  7.]]), array([[5.]]))
    """
    if stack.ndim < 3:
        _check_start(start)
    return side(stack).sum_blocks(stack, squared=squared)


def gram_of(blocks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Add up a tensor's `gram_blocks`, exactly and hence in any order, to its Gram matrix `[k, k]`.

    >>> gram_of(np.array([[5.0, 11.0, 25.0], [1.0, 0.0, 0.0]]))
    array([[ 6., 11.],
           [11., 25.]])
    """
    pairs = blocks.shape[1]
    models = (math.isqrt(8 * pairs + 1) - 1) // 2
    gram = np.empty((models, models))
    gram[np.triu_indices(models)] = [math.fsum(column) for column in blocks.T.tolist()]
    gram.T[np.triu_indices(models)] = gram[np.triu_indices(models)]
    return gram


def _check_start(start: int) -> None:
    if start % BLOCK:
        raise ValueError(f"a tile to be summed by blocks starts at a multiple of {BLOCK}, not at {start}")
