"""Ops along the last axis: both sides give the same bits, and what sorting in numpy gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from plait import ops
from plait.ops import BLOCK

torch = pytest.importorskip("torch")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SIDES = pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
DTYPES = st.sampled_from([np.float32, np.float64])
SHAPES = st.sampled_from([(1,), (9,), (0,), (2, 0), (0, 3), (3, 1), (2, 3, 5), (2, 66), (70,), (2, 1030)])
ELEMENTS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-40, -1e-45, 3e30, float("inf")]) | st.floats(-9, 9, width=32)


def on_both(call, *arrays):
    """Call with numpy arrays and with tensors, hold the results together, and return numpy's."""
    before = [x.tobytes() for x in arrays]
    result = call(*arrays)
    for device in DEVICES:
        other = call(*(torch.from_numpy(x.copy()).to(device) for x in arrays)).cpu().numpy()
        assert (result.shape, result.dtype) == (other.shape, other.dtype)
        assert result.tobytes() == other.tobytes()
    assert before == [x.tobytes() for x in arrays]
    return result


def drawn(data: st.DataObject, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    return data.draw(hnp.arrays(dtype, shape, elements=ELEMENTS))


def order(x: np.ndarray) -> np.ndarray:
    return np.argsort(abs(x), axis=-1, kind="stable")


@settings(max_examples=60, deadline=None)
@given(dtype=DTYPES, shape=SHAPES, data=st.data())
def test_ranks(dtype, shape, data):
    x = drawn(data, dtype, shape)
    result = on_both(ops.ranks, x)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, np.argsort(order(x), axis=-1, kind="stable"))


@pytest.mark.parametrize("columns", [2, 31, 63, 64, 1023, 1024, 5000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ranks_of_long_rows(dtype, columns):
    """Every digit of the sort matters: neighbours in the last bit, magnitudes far apart, many ties."""
    random = np.random.default_rng(columns)
    width = np.dtype(dtype).itemsize * 8
    any_bits = random.integers(0, 2 ** (width - 1), columns, dtype=np.uint64).astype(f"u{width // 8}").view(dtype)
    near = (
        (int(np.array(1, dtype).view(f"i{width // 8}")) + random.permutation(columns))
        .astype(f"i{width // 8}")
        .view(dtype)
    )
    few = random.integers(-3, 3, columns).astype(dtype)
    x = np.stack([np.where(np.isfinite(any_bits), any_bits, 0), near, few, -near[::-1]])
    np.testing.assert_array_equal(on_both(ops.ranks, x), np.argsort(order(x), axis=-1, kind="stable"))


def kept(x: np.ndarray, n: int, m: int) -> np.ndarray:
    out = np.zeros_like(x)
    for row in np.ndindex(x.shape[:-1]):
        for low in range(0, x.shape[-1], m):
            group = x[row][low : low + m]
            chosen = np.argsort(-abs(group), kind="stable")[:n]
            out[row][low + chosen] = group[chosen]
    return out


@settings(max_examples=80, deadline=None)
@given(dtype=DTYPES, shape=SHAPES, m=st.integers(1, 9), share=st.floats(0, 1), data=st.data())
def test_keep_of_each(dtype, shape, m, share, data):
    x, n = drawn(data, dtype, shape), int(share * m)
    assert on_both(lambda v: ops.keep_of_each(v, n, m), x).tobytes() == kept(x, n, m).tobytes()


@pytest.mark.parametrize(("n", "m"), [(64, 256), (1, 300), (299, 300), (300, 300), (10, 10**9)])
def test_keep_of_large_groups(n, m):
    random = np.random.default_rng(n)
    for x in (random.standard_normal((3, 1000)).astype(np.float32), random.integers(-3, 3, (3, 1000)).astype(float)):
        assert on_both(lambda v: ops.keep_of_each(v, n, m), x).tobytes() == kept(x, n, m).tobytes()


def row_sums(x: np.ndarray) -> np.ndarray:
    """The documented order, written out in numpy."""
    total = np.zeros(x.shape[:-1])
    for low in range(0, x.shape[-1], BLOCK):
        lanes = np.zeros((*x.shape[:-1], 64))
        for step in range(low, min(low + BLOCK, x.shape[-1]), 64):
            part = x[..., step : min(step + 64, low + BLOCK)]
            lanes[..., : part.shape[-1]] += part
        while lanes.shape[-1] > 1:
            half = lanes.shape[-1] // 2
            lanes = lanes[..., :half] + lanes[..., half:]
        total = total + lanes[..., 0]
    return total[..., None]


@pytest.mark.parametrize(
    "shape", [(1,), (0,), (2, 0), (0, 5), (3, 1), (2, 3, 64), (2, 65), (2, 4096), (4097,), (2, 9001)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_and_norms(dtype, shape):
    random = np.random.default_rng(1)
    x = (random.standard_normal(shape) * np.exp(random.uniform(-20, 20, shape))).astype(dtype)
    wide = x.astype(np.float64)
    assert on_both(ops.row_sum, x).tobytes() == row_sums(wide).astype(dtype).tobytes()
    assert on_both(ops.row_norm, x).tobytes() == np.sqrt(row_sums(wide * wide)).astype(dtype).tobytes()


def test_small_rows_have_a_norm():
    assert on_both(ops.row_norm, np.full((1, 4), 1e-30, np.float32)).tolist() == [[np.float32(2e-30)]]
    tiny = np.full((1, 4), 1e-45, np.float32)
    assert on_both(ops.row_norm, tiny).tolist() == [[2 * float(tiny[0, 0])]]


def test_a_zero_row_has_a_finite_gradient():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    (ops.row_norm(x) + ops.row_sum(x)).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[1.0, 1.0], [1.6, 1.8]]))


@SIDES
def test_misuse_is_told(convert):
    x = convert(np.ones((2, 3), np.float32))
    for op in (ops.ranks, ops.row_sum, ops.row_norm, lambda v: ops.keep_of_each(v, 1, 2)):
        with pytest.raises(ValueError, match="without dimensions"):
            op(convert(np.array(1.0)))
        with pytest.raises(TypeError, match="float16"):
            op(convert(np.ones(3, np.float16)))
    for n, m in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=f"n = {n}, m = {m}"):
            ops.keep_of_each(x, n, m)


def test_strided_inputs_are_taken_as_what_they_say():
    wide = np.random.default_rng(0).standard_normal((2, 3, 8)).astype(np.float32)
    for op in (ops.ranks, ops.row_sum, ops.row_norm, lambda v: ops.keep_of_each(v, 1, 2)):
        for view in (wide[:, :, ::2], wide.transpose(0, 2, 1)):
            assert op(view).tobytes() == op(view.copy()).tobytes()


@pytest.mark.parametrize("columns", [1, 5, 70, 5000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_divergence_of_rows(dtype, columns):
    random = np.random.default_rng(columns)
    x = (3 * random.standard_normal((2, 3, columns))).astype(dtype)
    y = (x + random.standard_normal(x.shape)).astype(dtype)
    p, q = (np.exp(each.astype(np.longdouble)) for each in (x, y))
    p, q = (each / each.sum(axis=-1, keepdims=True) for each in (p, q))
    expected = (p * np.log(p / q)).sum(axis=-1, keepdims=True)
    result = on_both(ops.row_divergence, x, y)
    np.testing.assert_allclose(result, expected.astype(dtype), rtol=3e-7 if dtype == np.float32 else 1e-13, atol=1e-15)


def test_divergence_of_extreme_rows():
    """Neither sum overflows or vanishes; a row that is shifted as a whole has none."""
    x = np.array([[1000.0, 1000.0], [0.0, -1000.0], [3.0, 4.0], [-900.0, -901.0]])
    y = np.array([[1000.0, 1000.0], [0.0, -1000.0], [1003.0, 1004.0], [900.0, 901.0]])
    result = on_both(ops.row_divergence, x, y)
    np.testing.assert_allclose(result[:, 0], [0, 0, 0, np.tanh(0.5)], atol=1e-12)


@SIDES
def test_divergence_is_of_rows_alike(convert):
    for other in (np.ones((2, 4)), np.ones((2, 3), np.float32)):
        with pytest.raises(ValueError, match="rows of one length and type"):
            ops.row_divergence(convert(np.ones((2, 3))), convert(other))
