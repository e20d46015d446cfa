"""Sums over fixed blocks: the same for any tiles, rows kept apart, on numpy and on torch; and the order of floats' bits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from plait.ops import BLOCK, abs_sum_blocks, gram_blocks, sum_blocks
from plait.ops.magnitude import ordered_bits


def normal(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, BLOCK, BLOCK + 1, 3 * BLOCK + 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_blocks_have_the_order_of_the_other_sums(size, dtype):
    stack = normal((3, size), dtype=dtype)
    assert sum_blocks(abs(stack)).tobytes() == abs_sum_blocks(stack).tobytes()
    assert sum_blocks(stack, squared=True).tobytes() == gram_blocks(stack)[:, [0, 3, 5]].tobytes()
    expected = [math.fsum(row) for row in stack.astype(float).tolist()]
    np.testing.assert_allclose(sum_blocks(stack).sum(axis=0), expected, rtol=1e-12, atol=1e-10)


def test_a_tensor_may_be_cut_at_blocks():
    stack = normal((2, 3 * BLOCK + 9))
    parts = [sum_blocks(stack[:, :BLOCK]), sum_blocks(stack[:, BLOCK:], BLOCK)]
    assert np.concatenate(parts).tobytes() == sum_blocks(stack).tobytes()
    with pytest.raises(ValueError, match=f"multiple of {BLOCK}, not at 7"):
        sum_blocks(stack, 7)


def test_rows_are_summed_apart_and_may_be_cut_anywhere():
    stack = normal((2, 5, BLOCK + 3))
    whole = sum_blocks(stack, 7)
    assert whole.shape == (10, 2)
    assert whole[2:4].tobytes() == sum_blocks(np.ascontiguousarray(stack[:, 1])).tobytes()
    assert whole.tobytes() == np.concatenate([sum_blocks(stack[:, :2]), sum_blocks(stack[:, 2:], 99)]).tobytes()
    assert sum_blocks(stack[:, :0]).shape == (0, 2)


@pytest.mark.parametrize("shape", [(3, BLOCK + 5), (2, 3, 70), (1, 2, 3, 64), (2, 0), (2, 3, 0)])
@pytest.mark.parametrize("squared", [False, True])
def test_torch_gives_the_same_bits(shape, squared):
    torch = pytest.importorskip("torch")
    stack = normal(shape)
    there = sum_blocks(torch.from_numpy(stack), squared=squared)
    here = sum_blocks(stack, squared=squared)
    assert tuple(there.shape) == here.shape
    assert there.numpy().tobytes() == here.tobytes()


def test_what_is_no_stack_is_refused():
    for wrong in (np.ones(3, np.float32), np.ones((0, 3), np.float32)):
        with pytest.raises(ValueError, match="a stack to be summed is"):
            sum_blocks(wrong)
    with pytest.raises(TypeError, match="not in int64"):
        sum_blocks(np.ones((2, 3), np.int64))


def test_ordered_bits_are_ordered_as_the_numbers():
    torch = pytest.importorskip("torch")
    x = np.sort(np.concatenate([normal(2000), [-1e-42, 1e-42, 3e38, -3e38]]).astype(np.float32))
    bits = ordered_bits(x)
    assert (np.diff(bits.astype(np.int64)) > 0).all()
    assert ordered_bits(torch.from_numpy(x)).tolist() == bits.tolist()
    with pytest.raises(TypeError, match="bits of float32"):
        ordered_bits(x.astype(np.float64))
