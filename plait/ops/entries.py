"""Ops on single entries, whatever lies around them: choices, orders, and functions whose bits every device agrees on.

Where several arrays go in, their shapes broadcast as numpy's do, and any may be a plain number. The result has the
dtype of the first that is a float array (what a stack is compared with is rounded to it, so put the stack first), or
float32 when all are plain numbers. Zeros that `minimum`, `maximum` and `median` return are +0, so that the order of
what they are given does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from plait.ops.sides import Array, side

__all__ = ["exp", "maximum", "median", "minimum", "sign", "sqrt", "stacked", "tanh", "where"]

Number = float | np.floating[Any]


def where(condition: Array, x: Array | Number, y: Array | Number) -> Array:
    """Take x where the condition holds, y elsewhere. Shapes broadcast; the condition is an array of bool.

    >>> where(np.array([True, False]), np.array([[1.0, 2.0], [3.0, 4.0]]), 0)
    array([[1., 0.],
           [3., 0.]])
    """
    return side(condition, x, y).where(condition, x, y)


def sign(x: Array) -> Array:
    """Take the sign: -1, 0 or 1. Any shape.

    >>> sign(np.array([-2.0, 0.0, 0.5]))
    array([-1.,  0.,  1.])
    """
    return side(x).sign(x)


def minimum(x: Array | Number, y: Array | Number) -> Array:
    """Take the lesser of the two, entry by entry. Shapes broadcast.

    >>> minimum(np.array([1.0, 2.0]), np.array([[0.5], [3.0]]))
    array([[0.5, 0.5],
           [1. , 2. ]])
    """
    return side(x, y).minimum(x, y)


def maximum(x: Array | Number, y: Array | Number) -> Array:
    """Take the greater of the two, entry by entry. Shapes broadcast.

    >>> maximum(np.array([-1.0, 2.0]), 0)
    array([0., 2.])
    """
    return side(x, y).maximum(x, y)


def sqrt(x: Array) -> Array:
    """Take the square root, correctly rounded. Any shape; of what is below 0 it is NaN.

    >>> sqrt(np.array([0.0, 2.25]))
    array([0. , 1.5])
    """
    return side(x).sqrt(x)


def exp(x: Array) -> Array:
    """Raise e to the power x, within 0.501 ulp in float32 and 2 ulp in float64. Any shape.

    e^x = 2^n e^r with n the integer nearest x / ln 2, and the Taylor polynomial of degree 13 for e^r. All of it is
    float64 products and sums, rounded to the dtype of x at the end, so every device gives the same bits.

    >>> exp(np.array([0.0, 1.0, -np.inf]))
    array([1.        , 2.71828183, 0.        ])
    """
    return side(x).exp(x)


def tanh(x: Array) -> Array:
    """Take the hyperbolic tangent, within 0.501 ulp in float32 and 3 ulp in float64. Any shape; of -0 it is +0.

    (e^2x - 1) / (e^2x + 1), from the polynomial of `exp` without its 1, so that small x keep all their digits.

    >>> tanh(np.array([0.0, 0.5, -np.inf]))
    array([ 0.        ,  0.46211716, -1.        ])
    """
    return side(x).tanh(x)


def stacked(arrays: Sequence[Array]) -> Array:
    """Put arrays of one shape side by side. k times `[*shape]` -> `[k, *shape]`, in the dtype of the first.

    >>> stacked([np.array([1.0, 2.0]), np.array([3.0, 4.0])])
    array([[1., 2.],
           [3., 4.]])
    """
    return side(*arrays).stacked(*arrays)


def median(stack: Array) -> Array:
    """Take, entry by entry, the median of the models; of an even number the mean of the middle two. `[k, *shape]` -> `[*shape]`.

    >>> median(np.array([[1.0, -4.0], [3.0, 2.0], [9.0, 0.0]]))
    array([3., 0.])
    """
    return side(stack).median(stack)
