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
from plait.ops.trace import Traced

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
    """Return what `run`, a method with all its arguments but the stack, does; None when no pipeline does that.

    A generator must have been given to `run` at the tensor's first element. What makes `run` raise is left for
    the tiles to meet again.
    """
    return _tried(lambda stack: _matched(run(stack), k))


def selection_of(keep: Callable[[Any], Any], k: int, start: int = 0) -> Pipeline | None:
    """Return the selection (trim or drop) that `keep` makes of a stack, as a pipeline; None when it is neither.

    `start` is the element that the generator given to `keep` is at.
    """

    def match(stack: Traced) -> Pipeline | None:
        found = _selection(keep(stack), Pipeline(np.ones(k, np.float32)), k, start)
        return None if found is None or found.factor.size else found

    return _tried(match)


def _tried(match: Callable[[Traced], Pipeline | None]) -> Pipeline | None:
    stack = Traced()
    try:
        found = match(stack)
    except Exception:  # noqa: BLE001 - a user's method may raise anything when it is not given an array
        return None
    return None if stack.troubles else found


def _matched(node: Any, k: int) -> Pipeline | None:
    scale = 1.0
    if isinstance(node, Traced) and node.op == "times" and type(node.arguments[1]) in {int, float}:
        # (Any other number would have numpy promote: np.float64 times float32 is float64.)
        scale, node = float(node.arguments[1]), node.arguments[0]
    if not isinstance(node, Traced) or node.op not in _WAYS:
        return None
    stack, weight = node.arguments[0], _numbers(node.arguments[-1], k)
    if node.op != "sum" and not _elects(node.arguments[1], stack, weight):
        return None
    return _selection(stack, Pipeline(weight, _WAYS[node.op], scale=scale), k, 0)


def _elects(sign: Any, stack: Traced, weight: npt.NDArray[np.float32]) -> bool:
    """Whether a sign was elected by the same entries and weights."""
    if not isinstance(sign, Traced) or sign.op != "elect" or sign.arguments[0] is not stack:
        return False
    return _numbers(sign.arguments[1], len(weight)).tobytes() == weight.tobytes()


def _selection(node: Traced, so_far: Pipeline, k: int, start: int) -> Pipeline | None:
    """Match what comes before the merging: at most a scaling of, at most, one selection from the stack itself."""
    if node.op == "scale" and not so_far.factor.size:
        factor = _numbers(node.arguments[1], k, or_one=True)
        return _selection(node.arguments[0], replace(so_far, factor=factor), k, start)
    if node.op == "input":
        return so_far
    if node.arguments[0].op != "input":
        return None
    if node.op == "trim":
        return replace(so_far, select=1, threshold=_numbers(node.arguments[1], k))
    return _dropping(so_far, node.arguments[1], node.arguments[2], start) if node.op == "drop" else None


def _dropping(so_far: Pipeline, density: Any, rng: Any, start: int) -> Pipeline | None:
    k = len(so_far.weight)
    if not isinstance(rng, Rng) or rng.start != start or rng.keys.size != k:
        return None
    keys = np.stack([rng.keys & np.uint64(0xFFFFFFFF), rng.keys >> np.uint64(32)], axis=1).astype(np.uint32)
    return replace(so_far, select=2, limits=keep_limits(density, k), keys=keys)


def _numbers(values: Any, k: int, *, or_one: bool = False) -> npt.NDArray[np.float32]:
    """Return one number per model, float32 as ops have them; where an op takes so, one for all."""
    each = np.asarray(values, np.float32).reshape(-1)
    if each.size != k and not (or_one and each.size == 1):
        raise ValueError(f"one number per model: {k} models, but {each.size} numbers")
    return np.ascontiguousarray(np.broadcast_to(each, (k,)))


def merge_grid(
    pipeline: Pipeline, grid: Grid, code: str, start: int, out: npt.NDArray[np.uint8], *, has_base: bool
) -> tuple[list[bool], bool]:
    """Run the pipeline over a grid whose first column is element `start` of the tensor; write `out`.

    Returns which rows are finite, and whether all that was written is.

    Raises:
        ValueError: rows that are not the pipeline's models (and the base), or an `out` of another size.
    """
    from plait.ops.on_cpu import pipeline as kernels  # late: compiles

    if (len(pipeline.weight) + has_base, out.size) != grid.shape:
        raise ValueError(f"a grid {list(grid.shape)} is not {len(pipeline.weight)} models for {out.size} bytes")
    kind, view = _KINDS[code]
    room = empty((2 * len(pipeline.weight) + 4, kernels.PIECE), np.float32)
    mask = kernels.merge_run(
        kind,
        grid.view(view),
        has_base,
        pipeline.select,
        pipeline.threshold,
        pipeline.limits,
        pipeline.keys,
        start,
        pipeline.factor,
        pipeline.way,
        pipeline.weight,
        np.float32(pipeline.scale),
        room,
        out.view(view),
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
        kind,
        grid.view(view),
        has_base,
        pipeline.select,
        pipeline.threshold,
        pipeline.limits,
        pipeline.keys,
        start,
        room,
        before,
        after,
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
