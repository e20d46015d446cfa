"""Sums by blocks: one fixed order on both sides, hence one result however the tensor is cut."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait import ops
from plait.ops import BLOCK

torch = pytest.importorskip("torch")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def reference(x: np.ndarray, y: np.ndarray) -> list[float]:
    """The documented order, written out in numpy."""
    sums = []
    for low in range(0, x.size, BLOCK):
        products = x[low : low + BLOCK].astype(np.float64) * y[low : low + BLOCK].astype(np.float64)
        lanes = np.zeros(64)
        for step in range(0, products.size, 64):
            part = products[step : step + 64]
            lanes[: part.size] += part
        while lanes.size > 1:
            half = lanes.size // 2
            lanes = lanes[:half] + lanes[half:]
        sums.append(float(lanes[0]))
    return sums


def stack_of(models: int, size: int, dtype: type, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    spread = np.exp(random.uniform(-30, 30, (models, size)))  # so that another order would give other bits
    return (random.standard_normal((models, size)) * spread).astype(dtype)


SIZES = st.sampled_from([0, 1, 63, 64, 65, 255, 256, 257, 300, 4095, 4096, 4097, 4096 + 320, 9001])


@settings(max_examples=60, deadline=None)
@given(models=st.integers(1, 4), size=SIZES, dtype=st.sampled_from([np.float32, np.float64]), seed=st.integers(0, 999))
def test_the_order_is_the_documented_one_on_both_sides(models, size, dtype, seed):
    stack = stack_of(models, size, dtype, seed)
    was = stack.copy()
    gram, sums = ops.gram_blocks(stack), ops.abs_sum_blocks(stack)
    pairs = [(i, j) for i in range(models) for j in range(i, models)]
    assert gram.dtype == sums.dtype == np.float64
    assert gram.shape == (-(-size // BLOCK), len(pairs))
    assert gram.T.tolist() == [reference(stack[i], stack[j]) for i, j in pairs]
    assert sums.T.tolist() == [reference(abs(x), np.ones_like(x)) for x in stack]
    for device in DEVICES:
        tensor = torch.from_numpy(stack.copy()).to(device)
        np.testing.assert_array_equal(ops.gram_blocks(tensor).cpu().numpy(), gram, strict=True)
        np.testing.assert_array_equal(ops.abs_sum_blocks(tensor).cpu().numpy(), sums, strict=True)
    assert stack.tobytes() == was.tobytes()


def test_tiles_give_the_rows_of_the_whole():
    stack = stack_of(3, 5 * BLOCK + 77, np.float32, 1)
    for op in (ops.gram_blocks, ops.abs_sum_blocks):
        whole = op(stack)
        cuts = [0, BLOCK, 3 * BLOCK, stack.shape[1]]
        tiles = [op(np.ascontiguousarray(stack[:, a:b]), a) for a, b in itertools.pairwise(cuts)]
        np.testing.assert_array_equal(np.concatenate(tiles), whole)


def test_a_tile_within_a_block_is_refused():
    for op in (ops.gram_blocks, ops.abs_sum_blocks):
        with pytest.raises(ValueError, match="multiple of 4096, not at 100"):
            op(np.ones((2, 8), np.float32), 100)


def test_the_gram_matrix_is_right_and_does_not_see_the_order_of_blocks():
    stack = np.random.default_rng(2).standard_normal((3, 2, 4 * BLOCK + 5)).astype(np.float32)
    blocks = ops.gram_blocks(stack)
    gram = ops.gram_of(blocks)
    flat = stack.reshape(3, -1).astype(np.float64)
    np.testing.assert_allclose(gram, flat @ flat.T, rtol=1e-12)
    assert (gram == gram.T).all()
    assert gram.tobytes() == ops.gram_of(blocks[::-1]).tobytes()
    exact = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(flat[0], flat[1], strict=True))
    assert math.isclose(gram[0, 1], exact, rel_tol=1e-12)


def test_no_elements_make_a_gram_matrix_of_zeros():
    assert ops.gram_of(ops.gram_blocks(np.ones((2, 0), np.float32))).tolist() == [[0, 0], [0, 0]]
