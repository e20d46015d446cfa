"""Arrays as the kernels take them: contiguous, of one dtype, with few axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from plait.ops.scratch import empty

__all__ = ["FLOATS", "Aligned", "Array", "aligned", "common_dtype", "flat_of", "like", "per_model", "plain", "rows_of"]

Array = npt.NDArray[Any]
FLOATS = frozenset({np.dtype(np.float32), np.dtype(np.float64)})


def like(shape: tuple[int, ...], x: Array) -> Array:
    """Make an array to be written, of the dtype of x."""
    return empty(shape, x.dtype)


def _check_dtype(x: Array) -> None:
    if x.dtype not in FLOATS:
        raise TypeError(f"ops compute in float32 or float64, not in {x.dtype}")


def rows_of(stack: Array) -> Array:
    """Return a stack as the kernels take it: `[k, n]`, C-contiguous; a copy only if it was not."""
    _check_dtype(stack)
    if stack.ndim == 0 or stack.shape[0] == 0:
        raise ValueError(f"a stack is [k, *shape] with at least one model, not {list(stack.shape)}")
    return np.ascontiguousarray(stack).reshape(stack.shape[0], math.prod(stack.shape[1:]))


def flat_of(x: Array) -> Array:
    """Return floats of any shape as `[n]`; a copy only if they were not C-contiguous."""
    _check_dtype(x)
    return np.ascontiguousarray(x).reshape(-1)


def plain(x: Any, beside: Array, shape: tuple[int, ...]) -> Array:
    """Return one array that goes with a stack (a base, a sign), flat and in the stack's dtype."""
    x = np.ascontiguousarray(x, beside.dtype).reshape(np.shape(x))
    if x.shape != shape:
        raise ValueError(f"this array is [*shape] = {list(shape)} beside such a stack, not {list(x.shape)}")
    return flat_of(x)


def per_model(number: Any, stack: Array) -> Array:
    """Return numbers `[k, 1, …, 1]` as `[k]` in the stack's dtype."""
    each = np.asarray(number, stack.dtype).reshape(-1)
    if each.size != stack.shape[0]:
        raise ValueError(f"one number per model: {stack.shape[0]} models, but {each.size} numbers")
    return each


def common_dtype(*values: Any) -> np.dtype[Any]:
    """Return the dtype of the first float array among arrays and plain numbers; float32 if there is none."""
    dtypes = []
    for value in values:
        if isinstance(value, (np.ndarray, np.generic)):
            dtypes.append(value.dtype)
        elif not isinstance(value, (bool, int, float)):
            raise TypeError(f"ops take numpy arrays or torch tensors, not {type(value).__name__}")
    for dtype in dtypes:
        if dtype not in FLOATS and dtype.kind not in "bui":
            raise TypeError(f"ops compute in float32 or float64, not in {dtype}")
    return next((dtype for dtype in dtypes if dtype in FLOATS), np.dtype(np.float32))


@dataclass(frozen=True)
class Aligned:
    """Arrays that broadcast, each flat, and how a kernel walks them: three nested loops over `extents`.

    In every loop array i goes on by `steps[i]` entries, which is 0 where it is repeated; in the last it is 0 or 1.
    """

    shape: tuple[int, ...]
    extents: tuple[int, int, int]
    arrays: list[Array]
    steps: list[tuple[int, int, int]]


def aligned(*arrays: Array) -> Aligned:
    """Settle how arrays broadcast; what would need more than three loops is copied out.

    Raises:
        ValueError: shapes that do not broadcast.
    """
    try:
        shape = np.broadcast_shapes(*(x.shape for x in arrays))
    except ValueError as error:
        told = " and ".join(str(list(x.shape)) for x in arrays)
        raise ValueError(f"arrays of the shapes {told} do not go together") from error
    loops = _loops([x.shape for x in arrays], shape)
    if len(loops) > 3:
        arrays = tuple(np.broadcast_to(x, shape) for x in arrays)
        loops = _loops([shape] * len(arrays), shape)
    loops = [(1, (False,) * len(arrays))] * (3 - len(loops)) + loops
    steps = [_steps([(extent, moves[i]) for extent, moves in loops]) for i in range(len(arrays))]
    (a, _), (b, _), (c, _) = loops
    return Aligned(shape, (a, b, c), [np.ascontiguousarray(x).reshape(-1) for x in arrays], steps)


def _loops(shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> list[tuple[int, tuple[bool, ...]]]:
    """Join axes along which the same arrays move: the extent of each loop, and which arrays move in it."""
    padded = [(1,) * (len(shape) - len(one)) + one for one in shapes]
    loops: list[tuple[int, tuple[bool, ...]]] = []
    for axis, extent in enumerate(shape):
        moves = tuple(one[axis] != 1 for one in padded)
        if loops and loops[-1][1] == moves:
            loops[-1] = (loops[-1][0] * extent, moves)
        elif extent != 1:
            loops.append((extent, moves))
    return loops


def _steps(loops: list[tuple[int, bool]]) -> tuple[int, int, int]:
    """How far one array goes on in each loop."""
    (_, first), (b, second), (c, third) = loops
    inner = c if third else 1
    return inner * (b if second else 1) if first else 0, inner if second else 0, int(third)
