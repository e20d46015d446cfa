"""Pipelines: what is made in one call equals, bit for bit, what the ops make one after another."""

from __future__ import annotations

from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plait import ops
from plait.ops import Rng, codec, magnitude
from plait.ops.on_cpu.pipeline import PIECE
from plait.ops.pipeline import (
    gram_of_grid,
    grid_can,
    merge_grid,
    norms_of_grid,
    pipeline_of,
    selection_of,
    window_of_grid,
)

TYPES = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}
SIZES = [0, 1, 7, PIECE - 1, PIECE, PIECE + 1, ops.BLOCK, ops.BLOCK + 1, 2 * ops.BLOCK + 77]
some = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
codes, sizes = st.sampled_from(sorted(TYPES)), st.sampled_from(SIZES)
seeds = st.integers(0, 10_000)


def make_grid(code: str, rows: int, size: int, seed: int) -> np.ndarray:
    """Raw elements; coarse numbers in part, so that votes tie, entries meet their threshold, and zeros abound."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((rows, size))
    coarse = random.integers(-2, 3, (rows, size)) / 2
    chosen = np.where(random.random((rows, size)) < 0.4, coarse, values).astype(TYPES[code])
    return np.ascontiguousarray(chosen).view(np.uint8).reshape(rows, size * np.dtype(TYPES[code]).itemsize)


def opened(grid: np.ndarray, code: str, *, has_base: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """The stack and base as the ops are given them, by the codec."""
    size = grid.shape[1] // np.dtype(TYPES[code]).itemsize
    stack = np.empty((len(grid) - has_base, size), np.float32)
    if not has_base:
        for raw, row in zip(grid, stack, strict=True):
            codec.decode(raw, code, row)
        return stack, None
    base = np.empty(size, np.float32)
    codec.decode(grid[-1], code, base)
    for raw, row in zip(grid, stack, strict=False):
        codec.decode_delta(raw, code, base, row)
    return stack, base


@st.composite
def methods(draw):
    """A method that is a pipeline: (run(stack, start), k). Weights may be negative or 0, and cancel."""
    k = draw(st.integers(1, 5))
    random = np.random.default_rng(draw(seeds))
    weight = random.choice([-1.0, 0.0, 0.5, 1.0, 1.3], (k, 1))
    threshold = random.choice([0.0, 0.5, 0.7, np.inf], (k, 1))
    density = random.choice([0.0, 0.3, 1.0], (k, 1))
    factor = draw(st.sampled_from([None, 1.7, random.standard_normal((k, 1))]))
    scale = draw(st.sampled_from([None, 1.0, 0.0, -0.3, 3]))
    select, way = draw(st.sampled_from(["all", "trim", "drop"])), draw(st.sampled_from(["sum", "vote", "mean"]))
    keys = random.integers(0, 2**64, k, dtype=np.uint64)

    def run(stack, start):
        kept = stack
        if select == "trim":
            kept = ops.trim(stack, threshold)
        elif select == "drop":
            kept = ops.drop(stack, density, Rng(keys, start))
        kept = kept if factor is None else ops.scale(kept, factor)
        if way == "sum":
            merged = ops.weighted_sum(kept, weight)
        else:
            sign = ops.elect(kept, weight)
            merged = (ops.agreeing_sum if way == "vote" else ops.agreeing_mean)(kept, sign, weight)
        return merged if scale is None else scale * merged

    def keep(stack, start):
        if select == "all":
            return stack
        return ops.trim(stack, threshold) if select == "trim" else ops.drop(stack, density, Rng(keys, start))

    return SimpleNamespace(k=k, run=run, keep=keep)


@some
@given(
    method=methods(),
    code=codes,
    size=sizes,
    seed=seeds,
    has_base=st.booleans(),
    start=st.sampled_from([0, 4096, 2**32 - 4096, 2**32 + 8192, 2**40]),
)
def test_a_merge_in_one_call_is_the_ops_one_after_another(method, code, size, seed, has_base, start):
    grid = make_grid(code, method.k + has_base, size, seed)
    was = grid.tobytes()
    stack, base = opened(grid, code, has_base=has_base)
    expected, out = np.empty(grid.shape[1], np.uint8), np.full(grid.shape[1], 7, np.uint8)
    finite = codec.encode(method.run(stack, start), code, expected, base)
    pipeline = pipeline_of(lambda traced: method.run(traced, 0), method.k)
    assert pipeline is not None
    assert merge_grid(pipeline, grid, code, start, out, has_base=has_base) == ([True] * len(grid), finite)
    assert out.tobytes() == expected.tobytes()
    assert grid.tobytes() == was


@some
@given(method=methods(), code=codes, size=sizes, seed=seeds, has_base=st.booleans(), start=st.sampled_from([0, 2**32]))
def test_norms_in_one_call_are_the_ops_one_after_another(method, code, size, seed, has_base, start):
    grid = make_grid(code, method.k + has_base, size, seed)
    stack, _ = opened(grid, code, has_base=has_base)
    selection = selection_of(lambda traced: method.keep(traced, start), method.k, start)
    before, after, finite = norms_of_grid(selection, grid, code, start, has_base=has_base)
    assert before.tobytes() == ops.abs_sum_blocks(stack).tobytes()
    assert after.tobytes() == ops.abs_sum_blocks(method.keep(stack, start)).tobytes()
    assert finite == [True] * len(grid)


@some
@given(k=st.integers(1, 5), code=codes, size=sizes, seed=seeds, has_base=st.booleans())
def test_gram_blocks_in_one_call_are_those_of_the_op(k, code, size, seed, has_base):
    grid = make_grid(code, k + has_base, size, seed)
    blocks, finite = gram_of_grid(grid, code, has_base=has_base)
    assert blocks.tobytes() == ops.gram_blocks(opened(grid, code, has_base=has_base)[0]).tobytes()
    assert finite == [True] * len(grid)


@some
@given(
    k=st.integers(1, 5),
    code=codes,
    size=sizes,
    seed=seeds,
    has_base=st.booleans(),
    width=st.sampled_from([1, 100, 1 << 20]),
    low=st.sampled_from([0.0, 0.4, 0.5, 3.0, 1e30]),
)
def test_windows_in_one_call_are_counted_as_by_the_op(k, code, size, seed, has_base, width, low):
    grid = make_grid(code, k + has_base, size, seed)
    stack, _ = opened(grid, code, has_base=has_base)
    low_bits = np.full(k, int(magnitude.magnitude_bits(np.array([low], np.float32))[0]), np.int64)
    low_bits[seed % k] = -1 if k > 1 else low_bits[0]
    counts, above = np.ones((k, width), np.int64), np.full(k, 5, np.int64)
    assert window_of_grid(grid, code, low_bits, counts, above, has_base=has_base) == [True] * len(grid)
    for i in range(k):
        own, over = np.ones(width, np.int64), 5
        if low_bits[i] >= 0:
            over += magnitude.window_count(stack[i], int(low_bits[i]), own)
        assert (counts[i] == own).all()
        assert above[i] == over


@pytest.mark.parametrize("code", TYPES)
@pytest.mark.parametrize("has_base", [False, True])
def test_what_is_not_finite_is_told_row_by_row(code, has_base):
    size = PIECE + 3
    pipeline = pipeline_of(lambda stack: ops.weighted_sum(stack, np.ones((3, 1))), 3)
    selection = selection_of(lambda stack: stack, 3)
    for row in range(3 + has_base):
        for place, bad in ((0, np.inf), (size - 1, np.nan)):
            grid = make_grid(code, 3 + has_base, size, 1)
            grid[row].view(TYPES[code])[place] = bad
            # (a difference from what is not finite is not finite, either)
            expected = [False] * 4 if row == 3 else [i != row for i in range(3 + has_base)]
            out = np.empty(grid.shape[1], np.uint8)
            assert merge_grid(pipeline, grid, code, 0, out, has_base=has_base) == (expected, False)
            assert norms_of_grid(selection, grid, code, 0, has_base=has_base)[2] == expected
            assert gram_of_grid(grid, code, has_base=has_base)[1] == expected
            tables = np.zeros(3, np.int64), np.zeros((3, 8), np.int64), np.zeros(3, np.int64)
            assert window_of_grid(grid, code, *tables, has_base=has_base) == expected


def test_a_result_that_overflows_is_told_though_all_inputs_are_finite():
    grid = np.full((2, 3), 60000, np.float16).view(np.uint8)
    pipeline = pipeline_of(lambda stack: ops.weighted_sum(stack, np.ones((2, 1))), 2)
    assert merge_grid(pipeline, grid, "F16", 0, np.empty(6, np.uint8), has_base=False) == ([True, True], False)


@pytest.mark.parametrize("k", [59, 60])
def test_sixty_rows_fit(k):
    has_base = k == 59
    grid = make_grid("BF16", 60, 100, 0)
    grid[-1].view(np.uint16)[5] = 0x7F80
    weight = np.ones((k, 1))
    pipeline = pipeline_of(lambda stack: ops.weighted_sum(stack, weight), k)
    finite, written = merge_grid(pipeline, grid, "BF16", 0, np.empty(200, np.uint8), has_base=has_base)
    assert not written
    assert finite == ([False] * 60 if has_base else [True] * 59 + [False])
    assert grid_can({"BF16"}, 60)
    assert not grid_can({"BF16"}, 61)
    assert not grid_can({"BF16", "F32"}, 2)
    assert not grid_can({"F64"}, 2)


def test_a_grid_of_another_size_is_refused():
    pipeline = pipeline_of(lambda stack: ops.weighted_sum(stack, np.ones((2, 1))), 2)
    grid = make_grid("F32", 2, 10, 0)
    for rows, out, has_base in ((grid, 44, False), (grid[:1], 40, False), (grid, 40, True)):
        with pytest.raises(ValueError, match="is not 2 models"):
            merge_grid(pipeline, rows, "F32", 0, np.empty(out, np.uint8), has_base=has_base)
