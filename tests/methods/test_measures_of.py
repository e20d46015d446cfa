"""Sums, extremes, thresholds and quantiles of any function of the stack: exact, in any tiles, forks and arrays."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plait import ops
from plait.methods.measures import (
    ExactSums,
    Threshold,
    extremes,
    kept_norm,
    magnitude_threshold,
    signed_quantile,
    summed,
)
from plait.ops import BLOCK, Rng, tile_scope

few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
KEYS = Rng(np.array([5, 6], np.uint64))


def drive(declared, stack, parameters=None, *, forks: int = 1, tile: int = 3 * BLOCK, enter=None, prime=False) -> Any:
    """Measure as the engine does, over pieces shared out to forks; `enter` has other parameters for each half."""
    k, size = stack.shape[0], math.prod(stack.shape[1:])
    measure = declared.make(parameters or {}, k, size)
    if not measure.needed():
        return measure.result()
    if prime and measure.wants_sample():
        measure.prime(stack.reshape(k, -1)[:, ::3])
    again, passes = True, 0
    while again:
        parts = [measure.fork() for _ in range(forks)]
        axis, length = min(1, stack.ndim - 1), tile if stack.ndim < 3 else 3
        for number, start in enumerate(range(0, stack.shape[axis], length)):
            with tile_scope():
                to = parts[number % forks]
                if enter is not None:
                    to.enter(enter[0] if start < stack.shape[1] // 2 else enter[1])
                piece = stack[:, start : start + length] if axis else stack
                to.update(piece, start, KEYS.at(start))
        for part in parts:
            measure.join(part)
        again = measure.finish_pass()
        passes += 1
        assert passes <= 3
    return measure.result()


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


HOSTILE = st.floats(-1e300, 1e300) | st.sampled_from([1e16, -1e16, 1.0, 2.0**-1074, 1e-320])


@few
@given(rows=st.lists(st.tuples(HOSTILE, HOSTILE), max_size=60), cut=st.integers(1, 7), most=st.integers(1, 20))
def test_sums_are_exact_however_they_are_condensed(rows, cut, most):
    numbers = np.array(rows, float).reshape(-1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plait.methods.measures.measure._ROWS", most)
        sums, other = ExactSums(), ExactSums()
        for number, start in enumerate(range(0, len(numbers), cut)):
            (other if number % 2 else sums).add(numbers[start : start + cut])
        sums.join(other)
    assert sums.rows <= most + 45
    expected = [float(sum((Fraction(value) for value in column), Fraction(0))) for column in numbers.T.tolist()]
    assert sums.totals(2).tolist() == expected


def test_memory_for_sums_is_bounded():
    sums = ExactSums()
    for seed in range(40):
        sums.add(np.random.default_rng(seed).standard_normal((1 << 13, 3)))
        assert sum(len(block) for block in sums.blocks) == sums.rows < 80_000
    values = np.concatenate([np.random.default_rng(seed).standard_normal((1 << 13, 3)) for seed in range(40)])
    assert sums.totals(3).tolist() == [math.fsum(column) for column in values.T.tolist()]


@pytest.mark.parametrize("forks", [1, 3])
@pytest.mark.parametrize("shape", [(2, 1), (2, 5 * BLOCK + 7), (2, 10, 33), (2, 4, BLOCK + 9)])
def test_sums(forks, shape):
    stack = normal(*shape)
    expected = [math.fsum(abs(row).reshape(-1).astype(float).tolist()) for row in stack]
    absolute = summed(lambda deltas, *_: abs(deltas))
    found = drive(absolute, stack, forks=forks)
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    if stack.ndim == 2:
        assert found.tobytes() == drive(absolute, stack, tile=BLOCK).tobytes()
        assert found.tolist() == [math.fsum(column) for column in ops.abs_sum_blocks(stack).T.tolist()]
    squares = drive(summed(lambda deltas, *_: deltas, squared=True), stack, forks=forks)
    np.testing.assert_allclose(squares, [(row.astype(float) ** 2).sum() for row in stack], rtol=1e-14)
    assert squares.dtype == np.float64


def test_what_is_summed_may_be_one_array_a_switch_or_drawn():
    stack = normal(2, 2 * BLOCK + 1)
    p = {"weight": np.array([[2.0], [3.0]]), "gain": 0.5}
    one = drive(summed(lambda d, p, _: p["weight"][0] * d[0] * p["gain"]), stack, p)
    assert one.shape == (1,)
    assert one[0] == pytest.approx(stack[0].astype(float).sum(), rel=1e-12)
    assert drive(summed(lambda d, *_: d > 0), stack).tolist() == (stack > 0).sum(axis=1).tolist()
    drawn = drive(summed(lambda d, p, rng: ops.drop(abs(d), p["weight"] / 6, rng)), stack, p)
    whole = abs(ops.drop(stack, p["weight"] / 6, KEYS)).astype(float).sum(axis=1)
    np.testing.assert_allclose(drawn, whole, rtol=1e-13)


def test_numbers_have_the_shape_and_type_of_the_stack():
    seen = []

    def look(stack, p, _):
        seen.append((p["a"].shape, p["b"].shape, p["a"].dtype, p["c"]))
        return stack

    p = {"a": np.ones((2, 1)), "b": np.ones((2, 3, 1)), "c": 1.5}
    drive(summed(look), normal(2, 10), p)
    drive(summed(look), normal(2, 4, 5).astype(np.float64), p)
    assert seen[1] == ((2, 1), (2, 3, 1), np.float32, 1.5)
    assert seen[-1] == ((2, 1, 1), (2, 3, 1, 1), np.float64, 1.5)
    drive(summed(look), np.ones(2, np.float32), p)
    assert seen[-1][0] == (2, 1), "a tensor without dimensions is one entry"


def test_what_is_not_needed_is_not_measured():
    def never(stack, p, rng):
        if stack.shape[-1] > 1:
            raise AssertionError
        return stack[0]

    idle = {"needed": lambda p: p["on"] > 0}
    assert drive(summed(never, **idle), normal(2, 5), {"on": 0}).tolist() == [0]
    assert drive(extremes(never, **idle), normal(2, 5), {"on": 0}).tolist() == [[0], [0]]
    with pytest.raises(AssertionError):
        drive(summed(never, **idle), normal(2, 5), {"on": 1})


@pytest.mark.parametrize("forks", [1, 3])
def test_extremes(forks):
    stack = normal(2, 5 * BLOCK + 7)
    stack[0] = np.abs(stack[0]) + 1
    stack[1] = -stack[0]
    found = drive(extremes(lambda d, *_: d), stack, forks=forks)
    assert found.tolist() == [stack.min(axis=1).tolist(), stack.max(axis=1).tolist()]
    one = drive(extremes(lambda d, *_: d[0] - d[1]), stack, forks=forks)
    assert one.tolist() == [[(stack[0] - stack[1]).min()], [(stack[0] - stack[1]).max()]]
    assert str(drive(extremes(lambda d, *_: d * 0 - 0.0), stack).tolist()) == "[[0.0, 0.0], [0.0, 0.0]]"


def ranked(values: np.ndarray, fraction: float) -> float:
    if fraction <= 0 or fraction >= 1:
        return math.inf if fraction <= 0 else 0.0
    rank = max(1, math.floor(fraction * values.size))
    return float(np.sort(np.abs(values))[-rank])


@pytest.mark.parametrize("size", [1, 100, 65_537, 150_001])
@pytest.mark.parametrize("prime", [False, True])
@pytest.mark.parametrize("fraction", [0.0, 1e-4, 0.37, 1.0])
def test_thresholds_of_a_function(size, prime, fraction):
    stack = normal(2, size)
    p = {"density": np.array([[fraction], [0.5]]), "top": fraction}
    both = drive(magnitude_threshold(lambda d, *_: d * d[::-1] * 2), stack, p, forks=2, prime=prime)
    product = stack[0] * stack[1] * 2
    assert both.tolist() == [ranked(product, fraction), ranked(product, 0.5)]
    one = drive(magnitude_threshold(lambda d, *_: d[0] - d[1], lambda p: p["top"]), stack, p, prime=prime)
    assert one.tolist() == [ranked(stack[0] - stack[1], fraction)], "one number, also where nothing is ranked"
    plain = drive(magnitude_threshold(keep=lambda p: p["top"]), stack, p, prime=prime)
    assert plain.tolist() == [ranked(stack[0], fraction), ranked(stack[1], fraction)]


def test_a_function_that_needs_rows_cannot_be_primed_but_is_exact():
    stack = normal(2, 300, 250)
    rows = magnitude_threshold(lambda d, *_: d * ops.row_norm(d)[:, :, :1], lambda _: 0.2)
    expected = (stack * ops.row_norm(stack)).reshape(2, -1)
    assert drive(rows, stack, prime=True).tolist() == [ranked(row, 0.2) for row in expected]
    measure = rows.make({}, *stack.reshape(2, -1).shape)
    measure.prime(stack.reshape(2, -1))
    measure.update(stack, 0, KEYS)
    assert not any(measure.kept.values()), "histograms do: nothing is kept"


@pytest.mark.parametrize("name", ["sum", "extremes", "threshold", "quantile"])
def test_what_is_seen_of_raw_elements_is_what_is_seen_of_the_stack(name):
    stack = normal(2, 100_000)
    results = []
    for raw in (False, True):
        measure = ALL[name].make({"weight": np.ones((2, 1))}, 2, 100_000)
        again = True
        while again:
            for start in range(0, 100_000, 10 * BLOCK):
                part = np.ascontiguousarray(stack[:, start : start + 10 * BLOCK])
                if raw:
                    grid = part.view(np.uint8)
                    assert measure.update_grid(grid, "F32", start, KEYS, has_base=False) == [True, True]
                else:
                    measure.update(part, start, KEYS.at(start))
            again = measure.finish_pass()
        results.append(measure.result().tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("size", [1, 2, 7, 65_536, 65_537, 150_001])
@pytest.mark.parametrize("at", [0.0, 0.01, 0.5, 0.987, 1.0])
def test_signed_quantiles(size, at):
    stack = normal(2, size)
    stack[1] = np.round(stack[1])  # many equal ones, zeros of either sign
    found = drive(signed_quantile(lambda d, *_: d, lambda _: at), stack, forks=2)
    np.testing.assert_allclose(found, np.quantile(stack.astype(float), at, axis=1), rtol=1e-15, atol=1e-300)
    one = drive(signed_quantile(lambda d, *_: d[0], lambda p: p["at"]), stack, {"at": at}, forks=2)
    assert one.tolist() == found[:1].tolist()
    each = drive(signed_quantile(lambda d, *_: d, lambda _: [at, 0.3]), stack)
    assert each[0] == found[0]
    assert each[1] == np.quantile(stack[1].astype(float), 0.3)


def test_quantiles_of_float64_are_not_rounded():
    stack = np.random.default_rng(0).standard_normal((1, 70_000)) * 1e-60
    found = drive(signed_quantile(lambda d, *_: d, lambda _: 0.25), stack, forks=2)
    np.testing.assert_allclose(found, np.quantile(stack, 0.25, axis=1), rtol=1e-15)


def test_quantiles_lie_in_0_to_1():
    with pytest.raises(ValueError, match="taken at 0 to 1, not at"):
        drive(signed_quantile(lambda d, *_: d, lambda _: 1.5), normal(2, 5))


ALL = {
    "sum": summed(lambda d, p, _: d * p["weight"]),
    "extremes": extremes(lambda d, p, _: d * p["weight"]),
    "threshold": magnitude_threshold(lambda d, p, _: d * p["weight"], lambda _: 0.3),
    "quantile": signed_quantile(lambda d, p, _: d * p["weight"], lambda _: 0.3),
}


@pytest.mark.parametrize("name", ALL)
def test_each_tensor_is_seen_with_its_own_numbers(name):
    stack = normal(2, 20 * BLOCK)
    first, second = {"weight": np.array([[1.0], [2.0]])}, {"weight": np.array([[-3.0], [0.5]])}
    scaled = stack.copy()
    scaled[:, : 10 * BLOCK] *= first["weight"].astype(np.float32)
    scaled[:, 10 * BLOCK :] *= second["weight"].astype(np.float32)
    found = drive(ALL[name], stack, first, forks=2, tile=2 * BLOCK, enter=(first, second))
    assert found.tobytes() == drive(ALL[name], scaled, {"weight": np.ones((2, 1))}).tobytes()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(2, 20 * BLOCK), (2, 9, 70)])
def test_torch_measures_the_same(name, shape):
    torch = pytest.importorskip("torch")
    stack, p = normal(*shape), {"weight": np.array([[1.5], [2.0]])}
    there = drive(ALL[name], torch.from_numpy(stack), p, tile=2 * BLOCK)
    assert there.tobytes() == drive(ALL[name], stack, p, forks=3).tobytes()


@pytest.mark.parametrize("name", ALL)
def test_another_number_of_rows_is_told(name):
    measure = ALL[name].make({"weight": np.ones((2, 1))}, 2, 10)
    measure.seen.of = lambda stack, *_: stack[0]
    with pytest.raises(ValueError, match="1 rows are measured, where one entry a model made 2"):
        measure.update(normal(2, 10), 0, None)


def test_one_number_for_each_row():
    with pytest.raises(ValueError, match="one number, or one for each of the 1 rows measured, not 2"):
        drive(magnitude_threshold(lambda d, *_: d[0]), normal(2, 5), {"density": np.array([[0.5], [0.5]])})


def test_what_results_depend_on():
    p = {"density": np.array([[0.5], [0.25]]), "gain": 2.0}
    assert summed(abs).depends is None
    assert summed(abs, reads=()).depends(p) == []
    assert extremes(abs, reads=("gain",)).depends(p) == [2.0]
    assert magnitude_threshold(abs).depends is None
    assert magnitude_threshold(keep=lambda p: p["gain"] / 4).depends(p) == 0.5
    assert Threshold.__metadata__[0].depends(p).tolist() == [[0.5], [0.25]]
    assert [one.scoped for one in (*ALL.values(), kept_norm(abs))] == [False, False, True, True, False]
