"""Gram matrices and weighted sums row by row: the documented order, the same bits from numpy and torch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait import ops

torch = pytest.importorskip("torch")
few = settings(max_examples=30, deadline=None)
sizes = st.sampled_from([0, 1, 5, 63, 64, 65, 255, 256, 321, 700])


def stack_of(k: int, rows: int, columns: int, seed: int, dtype: type = np.float32) -> np.ndarray:
    random = np.random.default_rng(seed)
    spread = np.exp(random.uniform(-30, 30, (k, rows, columns)))  # so that another order would give other bits
    return (random.standard_normal((k, rows, columns)) * spread).astype(dtype)


def in_order(x: np.ndarray, y: np.ndarray) -> float:
    """Lane l adds products l, l + 64, …; then halves of the lanes are added."""
    lanes = np.zeros(64)
    products = x.astype(np.float64) * y.astype(np.float64)
    for step in range(0, products.size, 64):
        part = products[step : step + 64]
        lanes[: part.size] += part
    while lanes.size > 1:
        lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
    return float(lanes[0])


@few
@given(k=st.integers(1, 4), rows=st.integers(0, 4), columns=sizes, seed=st.integers(0, 999), wide=st.booleans())
def test_grams_are_of_one_order_on_both_sides(k, rows, columns, seed, wide):
    stack = stack_of(k, rows, columns, seed, np.float64 if wide else np.float32)
    here, there = ops.gram_of_rows(stack), ops.gram_of_rows(torch.from_numpy(stack))
    assert here.dtype == there.dtype == np.float64
    assert here.shape == (rows, k, k)
    assert here.tobytes() == there.tobytes()
    for row in range(rows):
        for i in range(k):
            for j in range(k):
                first, second = sorted((i, j))
                assert here[row, i, j] == in_order(stack[first, row], stack[second, row])


@few
@given(k=st.integers(1, 4), rows=st.integers(0, 4), columns=sizes, seed=st.integers(0, 999), wide=st.booleans())
def test_weighted_rows_round_each_product_and_sum_once(k, rows, columns, seed, wide):
    dtype = np.float64 if wide else np.float32
    stack = stack_of(k, rows, columns, seed, dtype)
    weight = np.random.default_rng(seed).standard_normal((rows, k))
    here, there = ops.weighted_rows(stack, weight), ops.weighted_rows(torch.from_numpy(stack), weight)
    each = weight.astype(dtype)
    expected = each[:, 0, None] * stack[0]
    for i in range(1, k):
        expected = expected + each[:, i, None] * stack[i]
    assert here.tobytes() == there.numpy().tobytes() == expected.tobytes()
    assert here.dtype == dtype


def test_a_row_does_not_depend_on_its_neighbours():
    stack = stack_of(3, 6, 300, 1)
    whole = ops.gram_of_rows(stack)
    parts = [ops.gram_of_rows(stack[:, low : low + 2]) for low in (0, 2, 4)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_gradients_reach_the_rows():
    stack = torch.ones((2, 3, 4), requires_grad=True)
    weight = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    ops.weighted_rows(stack, weight).sum().backward()
    np.testing.assert_array_equal(stack.grad[:, :, 0].numpy().T, weight)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_refused(convert):
    flat, half = convert(np.ones((2, 3), np.float32)), convert(np.ones((2, 3, 4), np.float16))
    for wrong, error in ((flat, ValueError), (half, TypeError)):
        with pytest.raises(error):
            ops.gram_of_rows(wrong)
        with pytest.raises(error):
            ops.weighted_rows(wrong, np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"\[rows, k\] = \[3, 2\], not \[2, 3\]"):
        ops.weighted_rows(convert(np.ones((2, 3, 4), np.float32)), np.ones((2, 3)))
