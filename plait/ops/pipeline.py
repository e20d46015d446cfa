"""Merging raw elements to raw elements in one call, for methods made of select, add up or vote, and scale.

A *grid* is the raw elements of several models of one type side by side, `[rows, bytes]` uint8, the base
last if there is one. What a pipeline writes is the same, bit for bit, as the ops called one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from plait.ops.rng import Rng, keep_limits
from plait.ops.scratch import empty
from plait.ops.trace import Traced, Untraceable

__all__ = [
    "Grid",
    "Pipeline",
    "gram_of_grid",
    "grid_can",
    "merge_grid",
    "norms_of_grid",
    "pipeline_of",
    "selection_of",
    "window_of_grid",
]

Grid = npt.NDArray[np.uint8]
_KINDS = {"BF16": (0, np.uint16), "F16": (1, np.uint16), "F32": (2, np.float32)}
_MOST = 60  # models: the kernels answer with a bit for each
_WRITTEN = 62
_WAYS = {"sum": 0, "vote": 1, "mean": 2}


@dataclass(frozen=True)
class Pipeline:
    """What a method does, as the kernel takes it. Per-model numbers are `[k]`; an empty array means none."""

    weight: npt.NDArray[np.float32]
    way: int = 0
    """0 adds up, 1 adds up what has the elected sign, 2 takes its mean."""
    select: int = 0
    """0 keeps all, 1 trims, 2 drops."""
    threshold: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    limits: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    keys: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty((0, 2), np.uint32))
    factor: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    scale: float = 1.0


def grid_can(codes: set[str], rows: int) -> bool:
    """Whether grids of these element types and so many rows can be run."""
    return len(codes) == 1 and codes <= _KINDS.keys() and rows <= _MOST


def pipeline_of(run: Callable[[Any], Any], k: int) -> Pipeline | None:
    """Return what `run`, a method with all its arguments but the stack, does; None when no pipeline does that."""
    try:
        return _matched(run(Traced()), k)
    except (Untraceable, TypeError):
        return None


def _matched(node: Any, k: int) -> Pipeline | None:
    scale = 1.0
    if isinstance(node, Traced) and node.op == "times" and np.ndim(node.arguments[1]) == 0:
        scale, node = float(node.arguments[1]), node.arguments[0]
    if not isinstance(node, Traced) or node.op not in _WAYS:
        return None
    stack, weight = node.arguments[0], node.arguments[-1]
    if node.op != "sum":
        vote = node.arguments[1]
        if not isinstance(vote, Traced) or vote.op != "elect" or vote.arguments[0] is not stack:
            return None
        if vote.arguments[1] is not weight:
            return None
    selected = _selection(stack, Pipeline(_numbers(weight, k), _WAYS[node.op], scale=scale), k)
    return selected


def _selection(node: Any, so_far: Pipeline, k: int) -> Pipeline | None:
    if node.op == "scale" and not so_far.factor.size:
        return _selection(node.arguments[0], replace(so_far, factor=_numbers(node.arguments[1], k)), k)
    if node.op == "input":
        return so_far
    if not node.arguments or node.arguments[0].op != "input":
        return None
    if node.op == "trim":
        return replace(so_far, select=1, threshold=_numbers(node.arguments[1], k))
    if node.op == "drop":
        rng: Rng = node.arguments[2]
        keys = np.stack([rng.keys & np.uint64(0xFFFFFFFF), rng.keys >> np.uint64(32)], axis=1).astype(np.uint32)
        return replace(so_far, select=2, limits=keep_limits(node.arguments[1], k), keys=keys)
    return None


def _numbers(values: Any, k: int) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(np.broadcast_to(np.asarray(values, np.float32).reshape(-1), (k,)))


def merge_grid(
    pipeline: Pipeline, grid: Grid, code: str, start: int, out: npt.NDArray[np.uint8], *, has_base: bool
) -> tuple[list[bool], bool]:
    """Run the pipeline over a grid whose first column is element `start` of the tensor; write `out`.

    Returns which rows are finite, and whether all that was written is.
    """
    from plait.ops.on_cpu import pipeline as kernels  # late: compiles

    kind, view = _KINDS[code]
    room = empty((2 * len(pipeline.weight) + 4, kernels.PIECE), np.float32)
    mask = kernels.merge_run(
        kind, grid.view(view), has_base, pipeline.select, pipeline.threshold, pipeline.limits, pipeline.keys, start,
        pipeline.factor, pipeline.way, pipeline.weight, np.float32(pipeline.scale), room, out.view(view),
    )
    return _finite(int(mask), len(grid)), not int(mask) >> _WRITTEN & 1


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
    from plait.ops.on_cpu import pipeline as kernels  # late: compiles

    kind, view = _KINDS[code]
    room = empty((len(low_bits) + 1, kernels.PIECE), np.float32)
    mask = kernels.window_run(kind, grid.view(view), has_base, low_bits, counts, above, room)
    return _finite(int(mask), len(grid))


def selection_of(keep: Callable[[Any], Any], k: int) -> Pipeline | None:
    """Return the selection (trim or drop) that `keep` makes of a stack, as a pipeline; None when it is neither."""
    try:
        node = keep(Traced())
        return _selection(node, Pipeline(np.ones(k, np.float32)), k) if isinstance(node, Traced) else None
    except (Untraceable, TypeError):
        return None


def norms_of_grid(
    pipeline: Pipeline, grid: Grid, code: str, start: int, *, has_base: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[bool]]:
    """Return the `abs_sum_blocks` of the grid's models before and after the pipeline's selection, and the finite rows."""
    from plait.ops.on_cpu import pipeline as kernels  # late: compiles

    kind, view = _KINDS[code]
    models = len(grid) - has_base
    shape = (-(-(grid.shape[1] // np.dtype(view).itemsize) // kernels.BLOCK), models)
    before, after = np.empty(shape), np.empty(shape)
    room = empty((2 * models + 1, kernels.BLOCK), np.float32)
    mask = kernels.norms_run(
        kind, grid.view(view), has_base, pipeline.select, pipeline.threshold, pipeline.limits, pipeline.keys, start, room,
        before, after,
    )
    return before, after, _finite(int(mask), len(grid))


def gram_of_grid(grid: Grid, code: str, *, has_base: bool) -> tuple[npt.NDArray[np.float64], list[bool]]:
    """Return the `gram_blocks` of the grid's models (differences when there is a base), and which rows are finite."""
    from plait.ops.on_cpu import pipeline as kernels  # late: compiles

    kind, view = _KINDS[code]
    models = len(grid) - has_base
    columns = grid.shape[1] // np.dtype(view).itemsize
    blocks = np.empty((-(-columns // kernels.BLOCK), models * (models + 1) // 2))
    room = empty((models + 1, kernels.BLOCK), np.float32)
    mask = kernels.gram_run(kind, grid.view(view), has_base, room, blocks)
    return blocks, _finite(int(mask), len(grid))


def _finite(mask: int, rows: int) -> list[bool]:
    return [not mask >> i & 1 for i in range(rows)]
