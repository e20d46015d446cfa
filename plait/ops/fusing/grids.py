"""Running kernels over grids."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from plait.ops.fusing.program import Program
from plait.ops.scratch import empty

__all__ = [
    "Grid",
    "gram_of_grid",
    "grid_can",
    "histogram_of_grid",
    "merge_grid",
    "rows_of_grid",
    "sums_of_grid",
    "window_of_grid",
]

Grid = npt.NDArray[np.uint8]
_KINDS: dict[str, tuple[int, Any]] = {"BF16": (0, np.uint16), "F16": (1, np.uint16), "F32": (2, np.float32)}
_MOST_ROWS = 60  # the measuring kernels answer with a bit for each
_WORD = 0xFFFFFFFF


def grid_can(codes: set[str], rows: int) -> bool:
    """Whether grids of these element types and so many rows can be run."""
    return len(codes) == 1 and codes <= _KINDS.keys() and rows <= _MOST_ROWS


def merge_grid(
    program: Program, grid: Grid, code: str, start: int, out: npt.NDArray[np.uint8], *, has_base: bool
) -> bool:
    """Run a merging program over a grid whose first column is element `start` of the tensor; write `out`.

    Returns false, with nothing in `out` to be used, where an entry is not finite or so large that a difference might not
    be, or where the tensor's 2^32nd element lies within: then the ops must do it.

    Raises:
        ValueError: rows that are not the program's models (and the base), or an `out` of another size.
    """
    if (program.models + has_base, out.size) != grid.shape:
        raise ValueError(f"a grid {list(grid.shape)} is not {program.models} models for {out.size} bytes")
    view = _KINDS[code][1]
    return _run(program, ("merge", code, has_base), grid.view(view), start, out.view(view))


def sums_of_grid(
    program: Program, grid: Grid, code: str, start: int, *, has_base: bool, squared: bool = False
) -> npt.NDArray[np.float64] | None:
    """Return `sum_blocks` of a summing program's results over a grid: `[blocks, results]`; None where `merge_grid` fails."""
    from plait.ops.on_cpu.blocks import BLOCK  # late: compiles

    elements = grid.view(_KINDS[code][1])
    blocks = np.empty((-(-elements.shape[1] // BLOCK), len(program.results)))
    done = _run(program, ("squares" if squared else "sums", code, has_base), elements, start, blocks)
    return blocks if done else None


def rows_of_grid(
    program: Program, grid: Grid, code: str, start: int, *, has_base: bool
) -> npt.NDArray[np.float32] | None:
    """Return a summing program's results over a grid, `[results, n]` in the tile's memory; None where `merge_grid` fails."""
    elements = grid.view(_KINDS[code][1])
    rows = empty((len(program.results), elements.shape[1]), np.float32)
    return rows if _run(program, ("rows", code, has_base), elements, start, rows) else None


def _run(
    program: Program, which: tuple[str, str, bool], elements: npt.NDArray[Any], start: int, out: npt.NDArray[Any]
) -> bool:
    high = start >> 32
    if len(program.keys) and (start + elements.shape[1]) >> 32 != high:
        return False
    kernel = program.kernels.get(which)
    if kernel is None:
        from plait.ops.fusing.kept import compiled  # late: loads Numba
        from plait.ops.fusing.source import source

        kernel = program.kernels[which] = compiled(source(program, *which))
    return int(kernel(elements, program.numbers, _words(program, high), np.uint32(start & _WORD), out)) == 0


def _words(program: Program, high: int) -> npt.NDArray[np.uint32]:
    """What `plait.ops.rng` mixes the low words of indices with, and the last bits that are kept: `[m, 3]`."""
    before, between = _mix(high), _mix(high ^ 0x9E3779B9)
    rows = [
        ((key & _WORD) ^ before, (key >> 32) ^ between, limit - 1)
        for key, limit in zip(program.keys.tolist(), program.limits.tolist(), strict=True)
    ]
    return np.array(rows, np.uint32).reshape(-1, 3)


def _mix(x: int) -> int:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ x >> shift) * factor & _WORD
    return x ^ x >> 16


def window_of_grid(
    grid: Grid,
    code: str,
    low_bits: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    above: npt.NDArray[np.int64],
    *,
    has_base: bool,
) -> list[bool]:
    """Count magnitudes as `window_count`, for every model: `low_bits` `[k]` (negative: leave out), `counts` `[k, width]`.

    Adds what lies above each window to `above` `[k]`. Returns which rows are finite.
    """
    from plait.ops.on_cpu import grids as kernels  # late: compiles

    kind, view = _KINDS[code]
    room = empty((len(low_bits) + 1, kernels.PIECE), np.float32)
    mask = kernels.window_run(kind, grid.view(view), has_base, low_bits, counts, above, room)
    return _finite(int(mask), len(grid))


def histogram_of_grid(
    grid: Grid, code: str, high: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], *, has_base: bool
) -> list[bool]:
    """Count magnitudes as `histogram_high` where `high` `[k]` is -1, as `histogram_low` where it is 0 or more.

    `counts` is `[k, 2^16]`; a model whose `high` is below -1 is left out. Returns which rows are finite.
    """
    from plait.ops.on_cpu import grids as kernels  # late: compiles

    kind, view = _KINDS[code]
    room = empty((len(high) + 1, kernels.PIECE), np.float32)
    return _finite(int(kernels.histogram_run(kind, grid.view(view), has_base, high, counts, room)), len(grid))


def gram_of_grid(grid: Grid, code: str, *, has_base: bool) -> tuple[npt.NDArray[np.float64], list[bool]]:
    """Return the `gram_blocks` of the grid's models (differences when there is a base), and which rows are finite."""
    from plait.ops.on_cpu import grids as kernels  # late: compiles

    kind, view = _KINDS[code]
    models = len(grid) - has_base
    columns = grid.shape[1] // np.dtype(view).itemsize
    blocks = np.empty((-(-columns // kernels.BLOCK), models * (models + 1) // 2))
    room = empty((models + 1, kernels.BLOCK), np.float32)
    mask = kernels.gram_run(kind, grid.view(view), has_base, room, blocks)
    return blocks, _finite(int(mask), len(grid))


def _finite(mask: int, rows: int) -> list[bool]:
    return [not mask >> i & 1 for i in range(rows)]
