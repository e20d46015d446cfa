"""Fused loops: what is made in one call equals, bit for bit, what the ops make one after another."""

from __future__ import annotations

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plait import ops
from plait.ops import Rng, codec, magnitude
from plait.ops.fusing import (
    gram_of_grid,
    grid_can,
    grids,
    histogram_of_grid,
    kept,
    merge_grid,
    merging,
    rows_of_grid,
    summing,
    sums_of_grid,
    window_of_grid,
)
from plait.ops.fusing.program import MOST
from plait.ops.rng import Memory
from plait.ops.sizes import PIECE

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


W, V = np.array([[1.3], [-0.5], [0.25]]), np.array([[0.7], [0.5], [np.inf]])
ONES = np.ones((3, 1), np.float32)
D = np.array([[0.3], [0.0], [1.0]])
KEYS = np.array([3, 2**63 + 9, 77], np.uint64)


def trimmed(x, _):
    kept = ops.scale(ops.trim(x, V), 1.7)
    return 0.3 * ops.agreeing_mean(kept, ops.elect(kept, W), W)


def dropped(x, rng):
    kept = ops.scale(ops.drop(x, D, rng), W)
    return ops.agreeing_sum(kept, ops.elect(kept, ONES), W) + ops.weighted_sum(x, W)


def chosen(x, _):
    close = (abs(x[0] - x[1]) < 0.5) & ~(x[2] == 0) | (x[0] >= x[1])
    part = ops.where(close, ops.sign(x[1]) * ops.largest(x), -(x[0] ** 2) / 3)
    return ops.minimum(ops.maximum(part, x[2]), 0.9) - 1 * ops.clamp(x[1], -0.5, 0.75)


def listed(x, _):
    rows = ops.stacked([ops.sqrt(abs(entry)) * (1 - entry) for entry in x])
    mask = ops.where((rows > 0.1) & (rows != x), rows, 0)
    return ops.weighted_sum(W.astype(np.float32) * mask, ONES)


PROGRAMS = [trimmed, dropped, chosen, listed]
shaped = pytest.mark.parametrize(("code", "has_base"), [(code, base) for code in TYPES for base in (False, True)])


@pytest.mark.parametrize("run", PROGRAMS)
@shaped
def test_a_merge_in_one_call_is_the_ops_one_after_another(run, code, has_base):
    program = merging(lambda traced: run(traced, Rng(KEYS)), 3)
    assert program is not None
    for size in SIZES:
        for start in (0, 4096, 2**32 + 8192, 2**40):
            grid = make_grid(code, 3 + has_base, size, size)
            was = grid.tobytes()
            stack, base = opened(grid, code, has_base=has_base)
            expected, out = np.empty(grid.shape[1], np.uint8), np.full(grid.shape[1], 7, np.uint8)
            assert codec.encode(run(stack, Rng(KEYS, start)), code, expected, base)
            assert merge_grid(program, grid, code, start, out, has_base=has_base)
            assert out.tobytes() == expected.tobytes()
            assert grid.tobytes() == was


@pytest.mark.parametrize("squared", [False, True])
@shaped
def test_sums_in_one_call_are_the_ops_one_after_another(code, has_base, squared):
    def of(x, rng):
        return abs(x), ops.drop(x, D, rng), ops.weighted_sum(x, W), abs(x) >= 0.5

    program = summing(lambda traced: of(traced, Rng(KEYS)), 3)
    for size in SIZES:
        grid = make_grid(code, 3 + has_base, size, size)
        stack, _ = opened(grid, code, has_base=has_base)
        blocks = sums_of_grid(program, grid, code, 2**32, has_base=has_base, squared=squared)
        whole, kept, single, truth = of(stack, Rng(KEYS, 2**32))
        rows = np.concatenate([whole, kept, single[None], truth.astype(np.float32)])
        assert blocks.tobytes() == ops.sum_blocks(rows, squared=squared).tobytes()


@shaped
def test_what_was_drawn_for_sums_is_not_drawn_again(code, has_base, monkeypatch):
    grid, memory = make_grid(code, 3 + has_base, 9000, 4), Memory(room=9000)
    expected, out = np.empty(grid.shape[1], np.uint8), np.empty(grid.shape[1], np.uint8)
    program = merging(lambda x: dropped(x, Rng(KEYS)), 3)
    kept_sums = summing(lambda x: abs(ops.drop(x, D, Rng(KEYS))), 3)
    assert merge_grid(program, grid, code, 4096, expected, has_base=has_base)
    sums = sums_of_grid(kept_sums, grid, code, 4096, has_base=has_base)
    for _ in "ab":  # noted, then looked up
        noted = sums_of_grid(kept_sums, grid, code, 4096, has_base=has_base, memory=memory)
        assert noted.tobytes() == sums.tobytes()
    assert (len(memory.held), memory.room) == (1, 0)
    others = [
        (merging(lambda x, d=density, k=keys: ops.weighted_sum(ops.drop(x, d, Rng(k)), W), 3), start)
        for density, keys, start in ((0.8 * D, KEYS, 4096), (D, KEYS[::-1].copy(), 4096), (D, KEYS, 8192))
    ]
    for other, start in others:  # what was noted is not theirs
        plain = np.empty(grid.shape[1], np.uint8)
        assert merge_grid(other, grid, code, start, plain, has_base=has_base)
        assert merge_grid(other, grid, code, start, out, has_base=has_base, memory=memory)
        assert out.tobytes() == plain.tobytes()
    monkeypatch.setattr(grids, "_words", lambda program, _high: np.zeros((len(program.keys), 3), np.uint32))
    assert merge_grid(program, grid, code, 4096, out, has_base=has_base, memory=memory)
    assert out.tobytes() == expected.tobytes()


def test_a_run_across_the_2_to_the_32nd_element_is_left_to_the_ops():
    program = merging(lambda x: dropped(x, Rng(KEYS)), 3)
    grid = make_grid("F32", 3, 100, 0)
    assert not merge_grid(program, grid, "F32", 2**32 - 50, np.empty(400, np.uint8), has_base=False)
    # ...where nothing is random, it is like any other
    program = merging(lambda x: trimmed(x, None), 3)
    assert merge_grid(program, grid, "F32", 2**32 - 50, np.empty(400, np.uint8), has_base=False)


def test_a_loop_is_written_once_whatever_the_numbers():
    def numbered(w, scale):
        return merging(lambda x: scale * ops.weighted_sum(x, w), 3)

    first, other, equal = numbered(W, 2.0), numbered(ONES + W, 0.5), numbered(np.ones((3, 1)), 2.0)
    assert (first.lines, first.results) == (other.lines, other.results) == (equal.lines, equal.results)


def test_more_models_than_a_loop_names_are_left_to_the_ops():
    assert merging(lambda x: ops.weighted_sum(x, np.ones((MOST, 1))), MOST) is not None
    assert merging(lambda x: ops.weighted_sum(x, np.ones((MOST + 1, 1))), MOST + 1) is None


def test_many_models():
    weight = np.linspace(-1, 1, MOST)[:, None]
    program = merging(lambda x: ops.weighted_sum(x, weight) - ops.largest(x), MOST)
    grid = make_grid("BF16", MOST + 1, 5000, 3)
    stack, base = opened(grid, "BF16", has_base=True)
    expected, out = np.empty(10000, np.uint8), np.empty(10000, np.uint8)
    codec.encode(ops.weighted_sum(stack, weight) - ops.largest(stack), "BF16", expected, base)
    assert merge_grid(program, grid, "BF16", 0, out, has_base=True)
    assert out.tobytes() == expected.tobytes()


ONE = "def run(x):\n    return x.size + 1\n"
TAKES = ("float32[1]",)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAIT_CACHE_DIR", str(tmp_path))
    kept._compiled.cache_clear()
    yield tmp_path
    kept._compiled.cache_clear()


def test_kept_machine_code_is_not_that_of_other_helpers_or_processors(folder, monkeypatch):
    """Functions that a kernel calls are compiled into it: when they change, it is another kernel."""
    for name in ("_helpers", "processor"):
        for what in ("old", "new"):
            monkeypatch.setattr(kept, name, lambda what=what: what)
            kept._compiled.cache_clear()
            assert kept.compiled(ONE, TAKES)(np.zeros(3, np.float32)) == 4
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("harm", [lambda data: data[:-1], lambda data: data[:100] + b"?" + data[101:], lambda _: b""])
def test_kept_machine_code_that_was_harmed_is_made_anew(folder, harm):
    x = np.zeros(3, np.float32)
    assert kept.compiled(ONE, TAKES)(x) == 4
    (file,) = folder.iterdir()
    file.write_bytes(harm(file.read_bytes()))
    assert kept._read(file) is None
    kept._compiled.cache_clear()
    assert kept.compiled(ONE, TAKES)(x) == 4
    assert kept._read(file) is not None


def test_code_that_needs_numba_to_run_is_not_kept(folder):
    for text in ("def run(x):\n    return np.sort(x).size\n", "def run(x):\n    return np.zeros(x.size).size\n"):
        assert kept.compiled(f"import numpy as np\n{text}", TAKES)(np.zeros(3, np.float32)) == 3
    assert not list(folder.iterdir())


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((1, 3), np.float32), np.zeros(6, np.float32)[::2]])
def test_a_kernel_takes_only_what_it_was_made_for(folder, bad):
    with pytest.raises(TypeError, match=r"takes float32 \[1\], C-contiguous"):
        kept.compiled(ONE, TAKES)(bad)


def test_machine_code_is_kept_for_the_next_process_which_need_not_import_numba(tmp_path):
    text = (
        "import sys, numpy as np; from plait import ops; from plait.ops.fusing import merging, merge_grid\n"
        "program = merging(lambda x: 2.5 * ops.largest(x), 2)\n"
        "out = np.empty(8, np.uint8)\n"
        "assert merge_grid(program, np.ones((2, 2), np.float32).view(np.uint8), 'F32', 0, out, has_base=False)\n"
        "print(out.view(np.float32).tolist(), 'numba' in sys.modules)\n"
    )
    places = [tmp_path / "kept", tmp_path / "kept", tmp_path / "a file" / "no folder"]
    (tmp_path / "a file").touch()
    said = []
    for place in places:
        environment = {**os.environ, "PLAIT_CACHE_DIR": str(place)}
        ran = subprocess.run(
            [sys.executable, "-c", text], env=environment, capture_output=True, text=True, check=True, timeout=120
        )
        said.append(ran.stdout.strip())
    assert said == ["[2.5, 2.5] True", "[2.5, 2.5] False", "[2.5, 2.5] True"]
    assert len(list((tmp_path / "kept").iterdir())) == 1


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
    above, loose, counts = np.full(k, 5, np.int64), np.zeros(k, np.int64), np.ones((k, width), np.int64)
    doubled = summing(lambda traced: traced + traced, k)
    assert window_of_grid(doubled, grid, code, 0, low_bits, counts, above, loose, has_base=has_base)
    assert not loose.any()
    for i in range(k):
        own, over = np.ones(width, np.int64), 5
        if low_bits[i] >= 0:
            over += magnitude.window_count(stack[i] + stack[i], int(low_bits[i]), own)
        assert (counts[i] == own).all()
        assert above[i] == over


@pytest.mark.parametrize("size", [5, PIECE + 16])
def test_bit_patterns_may_share_a_counter_and_it_is_told_whether_they_differ(size):
    bits = (np.arange(3 * size).reshape(3, size) % 64 + 0x3F800000).astype(np.uint32)
    bits[1] &= np.uint32(0xFFFFFFFC)
    above, loose, counts = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros((3, 8), np.int64)
    itself = summing(lambda traced: traced, 3)
    low_bits = np.full(3, 0x3F800000 + 8, np.int64)
    tables = low_bits, counts, above, loose
    assert window_of_grid(itself, bits.view(np.uint8), "F32", 0, *tables, has_base=False, shift=2)
    places = bits.astype(np.int64) - low_bits[0]
    assert above.tolist() == (places >= 32).sum(axis=1).tolist()
    for row, found, differ in zip(places, counts, loose, strict=True):
        within = row[(row >= 0) & (row < 32)]
        assert found.tolist() == np.bincount(within >> 2, minlength=8).tolist()
        assert differ == np.bitwise_or.reduce(within & 3)
    assert loose[2] == 3


@shaped
def test_histograms_in_one_call_are_those_of_the_ops(code, has_base):
    grid = make_grid(code, 4 + has_base, PIECE + 77, 3)
    stack, _ = opened(grid, code, has_base=has_base)
    middle = int(magnitude.magnitude_bits(np.array([0.5], np.float32))[0]) >> 16
    counts = np.zeros((4, 1 << 16), np.int64)
    itself = summing(lambda traced: traced, 4)
    assert histogram_of_grid(itself, grid, code, 0, np.array([-1, middle, -2, 0]), counts, has_base=has_base)
    expected = np.zeros((4, 1 << 16), np.int64)
    magnitude.histogram_high(stack[0], expected[0, : magnitude.HIGH])
    magnitude.histogram_low(stack[1], middle, expected[1])
    magnitude.histogram_low(stack[3], 0, expected[3])
    assert (counts == expected).all()
    assert counts[1].any()


@shaped
def test_random_drops_are_counted_where_they_fall(code, has_base):
    grid = make_grid(code, 3 + has_base, 3 * PIECE + 77, 3)
    stack, _ = opened(grid, code, has_base=has_base)
    program = summing(lambda traced: ops.drop(traced, D, Rng(KEYS)), 3)
    above, counts = np.zeros((2, 3), np.int64), np.zeros((3, 1), np.int64)
    start = 7 * PIECE
    assert window_of_grid(program, grid, code, start, np.zeros(3, np.int64), counts, *above, has_base=has_base)
    kept = np.count_nonzero(ops.drop(stack, D, Rng(KEYS, start)), axis=1)
    assert above[0].tolist() == kept.tolist()


@shaped
def test_what_is_not_finite_is_left_to_the_ops_and_told_row_by_row(code, has_base):
    size = PIECE + 3
    program = merging(lambda stack: ops.weighted_sum(stack, np.ones((3, 1))), 3)
    total = summing(lambda stack: stack, 3)
    for row in range(3 + has_base):
        for place, bad in ((0, np.inf), (size - 1, np.nan)):
            grid = make_grid(code, 3 + has_base, size, 1)
            grid[row].view(TYPES[code])[place] = bad
            # (a difference from what is not finite is not finite, either)
            expected = [False] * 4 if row == 3 else [i != row for i in range(3 + has_base)]
            out = np.empty(grid.shape[1], np.uint8)
            assert not merge_grid(program, grid, code, 0, out, has_base=has_base)
            assert sums_of_grid(total, grid, code, 0, has_base=has_base) is None
            assert gram_of_grid(grid, code, has_base=has_base)[1] == expected
            low, counts, above = np.zeros(3, np.int64), np.zeros((3, 1 << 16), np.int64), np.zeros((2, 3), np.int64)
            assert not window_of_grid(total, grid, code, 0, low, counts, *above, has_base=has_base)
            assert not histogram_of_grid(total, grid, code, 0, low - 1, counts, has_base=has_base)
            assert not counts.any()  # nothing is counted of the pieces before it, either
            assert not above.any()


@pytest.mark.parametrize(("code", "most"), [("F16", 65504), ("BF16", 3.3895314e38)])
def test_a_result_that_overflows_is_left_to_the_ops(code, most):
    """What is rounded down to the greatest finite number is not: half a unit in the last place above it, less a little."""
    beyond = {"F16": 65520, "BF16": np.array([0x7F7F8000], np.uint32).view(np.float32)[0]}[code]
    grid = np.full((2, 3), 0.5, TYPES[code]).view(np.uint8)
    for total, fine in ((most, True), (np.nextafter(np.float32(beyond), np.float32(0)), True), (beyond, False)):
        weight = np.array([[total], [total]])
        program = merging(lambda stack, weight=weight: ops.weighted_sum(stack, weight), 2)
        out, expected = np.empty(grid.shape[1], np.uint8), np.empty(grid.shape[1], np.uint8)
        finite = codec.encode(ops.weighted_sum(opened(grid, code, has_base=False)[0], weight), code, expected, None)
        assert (merge_grid(program, grid, code, 0, out, has_base=False), finite) == (fine, fine)
        assert not fine or out.tobytes() == expected.tobytes()


def test_what_grids_can_be_run():
    assert grid_can({"BF16"}, 60)
    assert not grid_can({"BF16"}, 61)
    assert not grid_can({"BF16", "F32"}, 2)
    assert not grid_can({"F64"}, 2)
    program = merging(lambda stack: ops.weighted_sum(stack, np.ones((2, 1))), 2)
    with pytest.raises(ValueError, match="is not 2 models for 7 bytes"):
        merge_grid(program, make_grid("F32", 2, 2, 0), "F32", 0, np.empty(7, np.uint8), has_base=False)


@shaped
def test_rows_in_one_call_are_the_ops_one_after_another(code, has_base):
    def of(x, rng):
        return ops.drop(x, D, rng), ops.largest(x)

    program = summing(lambda traced: of(traced, Rng(KEYS)), 3)
    for size in SIZES:
        grid = make_grid(code, 3 + has_base, size, size)
        kept, single = of(opened(grid, code, has_base=has_base)[0], Rng(KEYS, 4096))
        rows = rows_of_grid(program, grid, code, 4096, has_base=has_base)
        assert rows.tobytes() == np.concatenate([kept, single[None]]).tobytes()
