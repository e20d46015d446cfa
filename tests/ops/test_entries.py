"""Ops on entries: numpy's and torch's side give the same bits, a plain reference the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from plait import ops

torch = pytest.importorskip("torch")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SIDES = pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
DTYPES = st.sampled_from([np.float32, np.float64])
NOTABLE = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 1e-40, -1e-45, 1e15, float("inf"), float("-inf")])
ELEMENTS = NOTABLE | st.floats(-1e3, 1e3, width=32)
SHAPES = st.sampled_from([(), (1,), (7,), (3, 5), (2, 0), (2, 3, 4), (2, 2100)])


def same(a: np.ndarray, b: np.ndarray) -> None:
    assert isinstance(a, np.ndarray)
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert a.tobytes() == b.tobytes()


def on_both(call, *arrays):
    """Call with numpy arrays and with tensors, hold the results together, and return numpy's."""
    before = [x.tobytes() for x in arrays]
    result = call(*arrays)
    for device in DEVICES:
        same(result, call(*(torch.from_numpy(x.copy()).to(device) for x in arrays)).cpu().numpy())
    assert before == [x.tobytes() for x in arrays]
    return result


UNARY = {
    "sign": (ops.sign, lambda x: np.sign(x) + x.dtype.type(0)),
    "sqrt": (lambda x: ops.sqrt(abs(x)), lambda x: np.sqrt(abs(x))),
}


@pytest.mark.parametrize("name", UNARY)
@settings(max_examples=40, deadline=None)
@given(dtype=DTYPES, shape=SHAPES, data=st.data())
def test_functions_of_one_array(name, dtype, shape, data):
    x = data.draw(hnp.arrays(dtype, shape, elements=ELEMENTS))
    call, reference = UNARY[name]
    same(on_both(call, x), np.asarray(reference(x)))


def lesser(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.where(y < x, y, x) + x.dtype.type(0)


BINARY = {
    "minimum": (ops.minimum, lesser),
    "maximum": (ops.maximum, lambda x, y: -lesser(-x, -y) + x.dtype.type(0)),
    "where": (lambda x, y: ops.where(x > y, x, y), lambda x, y: np.where(x > y, x, y)),
    "where by the first": (lambda x, y: ops.where(x > 0, 1, y), lambda x, y: np.where(x > 0, y.dtype.type(1), y)),
    "where of one number": (lambda x, y: ops.where(y >= 1, x, 0), lambda x, y: np.where(y >= 1, x, x.dtype.type(0))),
}


@pytest.mark.parametrize("name", BINARY)
@settings(max_examples=60, deadline=None)
@given(dtype=DTYPES, shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=5, max_side=4), data=st.data())
def test_functions_of_two_arrays_broadcast(name, dtype, shapes, data):
    x, y = (data.draw(hnp.arrays(dtype, shape, elements=ELEMENTS)) for shape in shapes.input_shapes)
    call, reference = BINARY[name]
    same(on_both(call, x, y), np.asarray(reference(x, y)))


@pytest.mark.parametrize("shape", [(1,), (3, 1, 1), (3, 1, 2500), (1, 70, 2500), (70, 1), (2500,), (3, 70, 1)])
def test_whatever_is_repeated_along_long_rows(shape):
    random = np.random.default_rng(0)
    x, y = (random.standard_normal(one).astype(np.float32) for one in ((3, 70, 2500), shape))
    same(on_both(ops.minimum, x, y), np.minimum(x, y))
    same(on_both(ops.maximum, y, x), np.maximum(x, y))
    same(on_both(lambda a, b: ops.where(b > 0, a, b), x, y), np.where(y > 0, x, y))
    same(on_both(lambda a, b: ops.where(a > 0, b, 2), x, y), np.where(x > 0, y, np.float32(2)))


@SIDES
def test_the_first_float_array_decides_the_dtype(convert):
    narrow, wide = convert(np.ones((2, 3), np.float32)), convert(np.full((2, 1), 0.1))
    yes = narrow > 0
    for result, width in (
        (ops.minimum(narrow, wide), 4),
        (ops.minimum(wide, narrow), 8),
        (ops.where(yes, narrow, wide), 4),
        (ops.where(yes, wide, narrow), 8),
        (ops.where(yes, 0.1, narrow), 4),
        (ops.where(yes, 0.1, 1), 4),
        (ops.maximum(yes, wide), 8),
        (ops.stacked([narrow[:, 0], wide[:, 0]]), 4),
    ):
        assert result.dtype.itemsize == width
    assert np.asarray(ops.minimum(narrow, wide))[0, 0] == np.float32(0.1)


@SIDES
def test_zeros_do_not_show_the_order(convert):
    x, y = convert(np.array([0.0, -0.0, -0.0])), convert(np.array([-0.0, 0.0, -0.0]))
    for op in (ops.minimum, ops.maximum, lambda a, b: ops.median(ops.stacked([a, b]))):
        assert np.signbit(np.asarray(op(x, y))).tolist() == [False] * 3


def test_numpy_scalars_are_arrays_without_dimensions():
    same(ops.minimum(np.float32(2), 1.0), np.array(1, np.float32))
    same(ops.where(np.True_, np.float32(2), np.float64(1)), np.array(2, np.float32))
    same(ops.sqrt(np.float32(4)), np.array(2, np.float32))
    same(ops.stacked([np.float32(1), np.float32(2)]), np.array([1, 2], np.float32))


@SIDES
def test_misuse_is_told(convert):
    x = convert(np.ones((2, 3), np.float32))
    for op in (ops.minimum, ops.maximum, lambda a, b: ops.where(a > 0, a, b)):
        with pytest.raises(ValueError, match=r"\[2, 3\] and (\[2, 3\] and )?\[2\] do not go together"):
            op(x, convert(np.ones(2, np.float32)))
        with pytest.raises(TypeError, match="float16"):
            op(x, convert(np.ones(3, np.float16)))
        with pytest.raises(TypeError, match="list"):
            op(x, [1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match=r"array of bool, not of .*float32"):
        ops.where(x, x, x)
    for op in (ops.sign, ops.sqrt, ops.exp, ops.tanh):
        with pytest.raises(TypeError, match="float16"):
            op(convert(np.ones(3, np.float16)))
    with pytest.raises(ValueError, match=r"only arrays of one shape can be stacked, not \[2, 3\] and \[3\]"):
        ops.stacked([x, x[0]])
    with pytest.raises(ValueError, match="at least one model"):
        ops.median(x[:0])


def test_numbers_alone_are_refused():
    for call in (
        lambda: ops.minimum(1, 2),
        lambda: ops.sqrt(2.0),
        lambda: ops.where(True, 1, 2),
        lambda: ops.stacked([]),
    ):
        with pytest.raises((TypeError, ValueError), match=r"not numbers alone|not float|not bool|nothing"):
            call()


@pytest.mark.parametrize("k", range(1, 20))
def test_the_median(k):
    for dtype in (np.float32, np.float64):
        stack = np.random.default_rng(k).integers(-4, 4, (k, 3, 900)).astype(dtype) / 8
        same(on_both(ops.median, stack), np.median(stack, axis=0).astype(dtype) + dtype(0))
    same(on_both(ops.median, stack[:, 0, 0]), np.asarray(np.median(stack[:, 0, 0])) + 0.0)
    assert on_both(ops.median, stack[:, :0]).shape == (0, 900)


def test_any_order_of_the_models_has_the_median():
    """A network that sorts all zeros and ones sorts everything (Knuth, volume 3, theorem 5.3.4Z)."""
    for k in range(1, 12):
        stack = (np.arange(2**k)[None] >> np.arange(k)[:, None] & 1).astype(np.float32)
        same(ops.median(stack), np.median(stack, axis=0).astype(np.float32))


def test_the_mean_of_the_middle_two_is_rounded_once():
    stack = np.array([[1.0], [np.nextafter(np.float32(1), np.float32(2))]], np.float32)
    assert on_both(ops.median, stack).tolist() == [1.0]
    assert on_both(ops.median, np.array([[1e-45], [3e-45]], np.float32)).tolist() == [np.float32(3e-45)]


def test_stacked():
    x = np.array([[1.0, -0.0], [2.0, 3.0]], np.float32)
    same(on_both(lambda a: ops.stacked([a, a + 1, -a]), x), np.stack([x, x + 1, -x]))
    same(on_both(lambda a: ops.stacked([a]), np.empty((2, 0))), np.empty((1, 2, 0)))


def inputs_of_exp(dtype: type) -> np.ndarray:
    random = np.random.default_rng(0)
    ends = [0, -0.0, 1e-45, -1e-40, 88.72, 88.73, -87.34, -103.97, -103.98, 709.78, 709.79, -708.4, -745.13, -746]
    halves = np.arange(-200, 200) * (np.log(2) / 2)  # where the integer changes
    parts = [
        random.uniform(-110, 95, 60000),
        random.standard_normal(20000),
        random.standard_normal(20000) * 1e-4,
        halves,
    ]
    return np.concatenate([*parts, ends, [np.inf, -np.inf, 2e38, -2e38]]).astype(dtype)


@pytest.mark.parametrize(("dtype", "bounds"), [(np.float32, (0.501, 0.501)), (np.float64, (2, 3))])
def test_exponentials_are_as_exact_as_they_say(dtype, bounds):
    x = inputs_of_exp(dtype)
    exact = np.longdouble if dtype is np.float64 else np.float64
    for op, reference, bound in ((ops.exp, np.exp, bounds[0]), (ops.tanh, np.tanh, bounds[1])):
        y = on_both(op, x)
        with np.errstate(over="ignore", under="ignore"):
            true = reference(x.astype(exact))
            rounded = true.astype(dtype)
        infinite = np.isinf(rounded)
        same(y[infinite], rounded[infinite])
        error = abs(y[~infinite].astype(exact) - true[~infinite]) / np.spacing(abs(rounded[~infinite]))
        assert error.max() <= bound
        assert not np.isnan(y).any()


@settings(max_examples=60, deadline=None)
@given(dtype=DTYPES, shape=SHAPES, data=st.data())
def test_exponentials_of_any_shape(dtype, shape, data):
    x = data.draw(hnp.arrays(dtype, shape, elements=ELEMENTS))
    for op, reference in ((ops.exp, np.exp), (ops.tanh, np.tanh)):
        with np.errstate(over="ignore", under="ignore"):
            np.testing.assert_allclose(on_both(op, x), reference(x), rtol=1e-6, atol=1e-45)


def test_tanh_is_odd_and_has_ends():
    x = inputs_of_exp(np.float64)
    same(ops.tanh(-x), -ops.tanh(x) + 0.0)
    assert ops.tanh(np.array([19.9, 1e300, -np.inf])).tolist() == [1, 1, -1]


def test_gradients():
    x = torch.tensor([-1.5, 0.25, 3.0], dtype=torch.float64, requires_grad=True)
    for op in (ops.exp, ops.tanh, lambda v: ops.sqrt(v * v + 1), lambda v: ops.median(ops.stacked([v, 2 * v, v * v]))):
        assert torch.autograd.gradcheck(op, x)
    assert torch.autograd.gradcheck(lambda v: ops.minimum(v, 1.0) + ops.maximum(v, -1) + ops.where(v > 0, v, 2 * v), x)
    zero = torch.zeros(1, requires_grad=True)
    ops.tanh(zero).backward()
    assert zero.grad.tolist() == [1]


def test_roots_of_float64_are_correctly_rounded():
    """torch's own root on a CPU is a library's, which at times is one bit off."""
    x = np.random.default_rng(0).uniform(0, 1e9, 100_000)
    same(on_both(ops.sqrt, x), np.sqrt(x))
    assert np.isnan(on_both(ops.sqrt, np.array([-1.0]))).all()
