"""Running kernels over grids."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from plait.ops.codec import KINDS
from plait.ops.fusing.kept import compiled
from plait.ops.fusing.machine import Signature
from plait.ops.fusing.program import Program, summing
from plait.ops.fusing.source import source
from plait.ops.rng import Memory
from plait.ops.scratch import empty
from plait.ops.sizes import BLOCK, LANES, PIECE

__all__ = [
    "Grid",
    "gram_of_grid",
    "grid_can",
    "histogram_of_grid",
    "merge_grid",
    "models_of_grid",
    "rows_of_grid",
    "sums_of_grid",
    "window_of_grid",
]

Grid = npt.NDArray[np.uint8]
_MOST_ROWS = 60  # the measuring kernels answer with a bit for each
_WORD = 0xFFFFFFFF
_MOST_AT_ONCE = 8  # models whose products are all added up in one loop
_BITS = 8  # drops whose results are noted in a byte


def grid_can(codes: set[str], rows: int) -> bool:
    """Whether grids of these element types and so many rows can be run."""
    return len(codes) == 1 and codes <= KINDS.keys() and rows <= _MOST_ROWS


def merge_grid(
    program: Program,
    grid: Grid,
    code: str,
    start: int,
    out: npt.NDArray[np.uint8],
    *,
    has_base: bool,
    memory: Memory | None = None,
) -> bool:
    """Run a merging program over a grid whose first column is element `start` of the tensor; write `out`.

    What `sums_of_grid` has drawn of the tensor and held in `memory` is not drawn again. Returns false, with nothing in `out` to be used, where an entry is not finite or so large that a difference might not
    be, or where the tensor's 2^32nd element lies within: then the ops must do it.

    Raises:
        ValueError: rows that are not the program's models (and the base), or an `out` of another size.
    """
    if (program.models + has_base, out.size) != grid.shape:
        raise ValueError(f"a grid {list(grid.shape)} is not {program.models} models for {out.size} bytes")
    view = KINDS[code][1]
    elements = grid.view(view)
    held = memory.held.get(_drawn(program, start, elements)) if memory else None
    if held is not None:
        return _run(program, ("merge", code, has_base, "look up"), elements, start, held, out.view(view))
    return _run(program, ("merge", code, has_base), elements, start, out.view(view))


def sums_of_grid(
    program: Program,
    grid: Grid,
    code: str,
    start: int,
    *,
    has_base: bool,
    squared: bool = False,
    memory: Memory | None = None,
) -> npt.NDArray[np.float64] | None:
    """Return `sum_blocks` of a summing program's results over a grid: `[blocks, results]`; None where `merge_grid` fails.

    What random drops keep is held in `memory`, where there is room, for `merge_grid`.
    """
    elements = grid.view(KINDS[code][1])
    blocks = np.empty((-(-elements.shape[1] // BLOCK), len(program.results)))
    room = empty((len(program.results) * BLOCK,), np.float32), empty((LANES,), np.float64)
    which = "squares" if squared else "sums", code, has_base
    if memory is None or not 0 < len(program.keys) <= _BITS:
        return blocks if _run(program, which, elements, start, *room, blocks) else None
    about = _drawn(program, start, elements)
    held = memory.held.get(about)
    if held is not None:
        return blocks if _run(program, (*which, "look up"), elements, start, held, *room, blocks) else None
    drawn = np.empty(elements.shape[1], np.uint8)
    if not _run(program, (*which, "note"), elements, start, drawn, *room, blocks):
        return None
    memory.hold(about, drawn)
    return blocks


def _drawn(program: Program, start: int, elements: npt.NDArray[Any]) -> Hashable:
    """Tell what is drawn from anything else that may be."""
    return start, elements.shape[1], program.keys.tobytes(), program.limits.tobytes()


def rows_of_grid(
    program: Program, grid: Grid, code: str, start: int, *, has_base: bool
) -> npt.NDArray[np.float32] | None:
    """Return a summing program's results over a grid, `[results, n]` in the tile's memory; None where `merge_grid` fails."""
    elements = grid.view(KINDS[code][1])
    rows = empty((len(program.results), elements.shape[1]), np.float32)
    return rows if _run(program, ("rows", code, has_base), elements, start, rows) else None


def _run(
    program: Program, which: tuple[Any, ...], elements: npt.NDArray[Any], start: int, *out: npt.NDArray[Any]
) -> bool:
    return _result(program, which, elements, start, *out) == 0


def _result(program: Program, which: tuple[Any, ...], elements: npt.NDArray[Any], start: int, *rest: Any) -> int:
    """Run a kernel: 0 where all is well. 1, and nothing is done, where random indices of two high words are needed."""
    high = start >> 32
    if len(program.keys) and (start + elements.shape[1]) >> 32 != high:
        return 1
    kernel = program.kernels.get(which)
    if kernel is None:
        kernel = program.kernels[which] = compiled(*source(program, *which))
    return kernel(elements, program.numbers, _words(program, high), start & _WORD, *rest)


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
    program: Program,
    grid: Grid,
    code: str,
    start: int,
    low_bits: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    above: npt.NDArray[np.int64],
    loose: npt.NDArray[np.int64],
    *,
    has_base: bool,
    shift: int = 0,
) -> bool:
    """Count the magnitudes of a summing program's results as `window_count` does; nothing, and false, where `merge_grid` fails.

    `low_bits` is `[results]` (negative: leave that one out), `counts` `[results, width]`. Each counter has 2^shift bit
    patterns, of which `low_bits` are multiples. What lies above each window is added to `above`, and the bits in which
    those counted together may differ are set in `loose`, both `[results]`.
    """

    def counted(size: int, step: int) -> int:
        tables = empty((len(program.results) * PIECE,), np.float32), shift, low_bits, counts, above, loose
        return _result(program, ("window", code, has_base), elements, start, size, step, *tables)

    elements = grid.view(KINDS[code][1])
    return _counted(elements.shape[1], counted)


def histogram_of_grid(
    program: Program,
    grid: Grid,
    code: str,
    start: int,
    high: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    *,
    has_base: bool,
) -> bool:
    """Count as `histogram_high` where `high` `[results]` is -1, as `histogram_low` where it is 0 or more; else as `window_of_grid`.

    `counts` is `[results, width]`, as wide as these need; a result whose `high` is below -1 is left out.
    """

    def counted(size: int, step: int) -> int:
        room = empty((len(program.results) * PIECE,), np.float32)
        return _result(program, ("bins", code, has_base), elements, start, size, step, room, high, counts)

    elements = grid.view(KINDS[code][1])
    return _counted(elements.shape[1], counted)


def _counted(size: int, counted: Callable[[int, int], int]) -> bool:
    """Count all; where that cannot be, take back what was counted up to there."""
    done = counted(size, 1)
    if done > 1:
        counted(done - 1, -1)
    return done == 0


def gram_of_grid(grid: Grid, code: str, *, has_base: bool) -> tuple[npt.NDArray[np.float64], list[bool]]:
    """Return the `gram_blocks` of the grid's models (differences when there is a base), and which rows are finite."""
    models = len(grid) - has_base
    elements = grid.view(KINDS[code][1])
    pairs = models * (models + 1) // 2
    blocks = np.empty((-(-elements.shape[1] // BLOCK), pairs))
    program = _as_they_are(models) if models <= _MOST_AT_ONCE else None
    if program:
        room = empty((models * BLOCK,), np.float32), empty((pairs * LANES,), np.float64)
        if _run(program, ("gram", code, has_base), elements, 0, *room, blocks):
            return blocks, [True] * len(grid)
    floats = empty((models + 1, BLOCK), np.float32), empty((LANES,), np.float64)
    return blocks, _measured("gram_run", grid, code, has_base, *floats, blocks)


def models_of_grid(grid: Grid, code: str, *, has_base: bool) -> npt.NDArray[np.float32] | None:
    """Return the models as float32 (differences when there is a base), `[k, n]`; None where `rows_of_grid` fails."""
    program = _as_they_are(len(grid) - has_base)
    return rows_of_grid(program, grid, code, 0, has_base=has_base) if program else None


@cache
def _as_they_are(models: int) -> Program | None:
    return summing(lambda stack: stack, models)


def _measured(name: str, grid: Grid, code: str, has_base: bool, *rest: npt.NDArray[Any]) -> list[bool]:
    """Run one of the measuring kernels; returns which rows are finite."""
    kind, view = KINDS[code]
    elements = grid.view(view)
    kernel = _kernel(name, str(elements.dtype), tuple(f"{array.dtype}[{array.ndim}]" for array in rest))
    mask = kernel(kind, elements, has_base, *rest)
    return [not mask >> i & 1 for i in range(len(grid))]


@cache
def _kernel(name: str, dtype: str, rest: Signature) -> Callable[..., int]:
    return compiled(f"from plait.ops.on_cpu.grids import {name} as run\n", ("int64", f"{dtype}[2]", "bool", *rest))
