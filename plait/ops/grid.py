"""Grids: the raw elements of several models of one element type, read side by side, `[rows, bytes]` uint8.

The fast way through the codec on a CPU. Where it does not apply (mixed or rarer types, float64 arithmetic), callers
decode row by row; the results are the same bit for bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from plait.ops.scratch import empty

__all__ = ["combine", "has_fast_way", "stack_of"]

Grid = npt.NDArray[np.uint8]
_CODES = frozenset({"BF16", "F16", "F32"})
_MOST = 60
_WRITTEN = 62


def has_fast_way(dtype_codes: set[str], rows: int) -> bool:
    """Whether a grid of these element types and so many rows can be used."""
    return len(dtype_codes) == 1 and dtype_codes <= _CODES and rows <= _MOST


def stack_of(
    grid: Grid, code: str, low: int, high: int, base: npt.NDArray[np.float32] | None
) -> tuple[npt.NDArray[np.float32], list[bool]]:
    """Decode elements [low, high) of the grid's models (all rows but the last, when there is a base).

    Returns the stack, of differences from `base` when that is given, and which models are finite.
    """
    from plait.ops.on_cpu.fused import STACKERS  # noqa: PLC0415 - compiles

    kind, kernel = STACKERS[code]
    models = len(grid) - (base is not None)
    out = empty((models, high - low), np.float32)
    mask = int(kernel(grid.view(kind), low, base, out))
    return out, [not mask >> i & 1 for i in range(models)]


def combine(
    grid: Grid, code: str, weight: npt.NDArray[np.float64], out: npt.NDArray[np.uint8], *, has_base: bool
) -> tuple[list[bool], bool]:
    """Write Σ weightᵢ xᵢ, or base + Σ weightᵢ (xᵢ − base) with the base in the last row, in the grid's own element type.

    Returns which rows are finite, and whether all that was written is.
    """
    from plait.ops.on_cpu.fused import COMBINERS  # noqa: PLC0415 - compiles

    kind, kernel = COMBINERS[code]
    room = empty((3, 2048), np.float32)
    mask = int(kernel(grid.view(kind), weight.astype(np.float32), has_base, room, out.view(kind)))
    return [not mask >> i & 1 for i in range(len(grid))], not mask >> _WRITTEN & 1
