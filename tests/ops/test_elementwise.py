"""Element-wise ops: Numba, torch and a plain numpy reference give the same bits, and the laws hold."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from plait import ops
from plait.ops import Rng

if TYPE_CHECKING:
    from collections.abc import Callable

torch = pytest.importorskip("torch")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@dataclass(frozen=True)
class Inputs:
    stack: np.ndarray
    weight: np.ndarray  # [k, 1, …, 1]
    base: np.ndarray  # [*shape]
    sign: np.ndarray  # [*shape], ±1
    density: np.ndarray  # [k, 1, …, 1]
    chances: np.ndarray  # [k, *shape], in [0, 1]
    keys: np.ndarray


def bits(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).view({4: np.int32, 8: np.int64}[x.dtype.itemsize])


def same(a: np.ndarray, b: np.ndarray) -> None:
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    np.testing.assert_array_equal(bits(a), bits(b))


def reference_sum(i: Inputs) -> np.ndarray:
    total = i.weight[0] * i.stack[0]
    for w, x in zip(i.weight[1:], i.stack[1:], strict=True):
        total = total + w * x
    return total


def reference_agreeing(i: Inputs) -> tuple[np.ndarray, np.ndarray]:
    votes = i.weight * i.stack
    agrees = (np.sign(votes) == i.sign) & (votes != 0)
    total, share = np.zeros_like(i.base), np.zeros_like(i.base)
    for vote, yes, w in zip(votes, agrees, i.weight, strict=True):
        total[yes] += vote[yes]
        share[yes] += np.broadcast_to(w, vote.shape)[yes]
    return total, share


def reference_mean(i: Inputs) -> np.ndarray:
    total, share = reference_agreeing(i)
    return np.divide(total, share, out=np.zeros_like(total), where=share != 0)


def reference_largest(i: Inputs) -> np.ndarray:
    highest, lowest = i.stack.max(axis=0), i.stack.min(axis=0)
    return np.where(highest >= -lowest, highest, lowest) + i.stack.dtype.type(0)


def reference_bits(keys: np.ndarray, start: int, count: int) -> np.ndarray:
    """Written out anew, in Python's integers, from the definition in plait.ops.rng."""

    def mix(x: int) -> int:
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x = (x ^ x >> shift) * factor % 2**32
        return x ^ x >> 16

    def number(key: int, index: int) -> int:
        low, high = index % 2**32, index // 2**32
        return mix(mix(low ^ key % 2**32 ^ mix(high)) ^ key // 2**32 ^ mix(high ^ 0x9E3779B9))

    return np.array([[number(int(key), start + j) for j in range(count)] for key in keys])


def reference_drop(i: Inputs, density: np.ndarray) -> np.ndarray:
    numbers = reference_bits(i.keys, START, i.base.size).reshape(i.stack.shape)
    limit = np.array([int(d * 2**32) for d in density.reshape(-1)], np.int64).reshape(density.shape)
    return np.where(numbers < limit, i.stack, i.stack.dtype.type(0))


START = 2**32 - 3  # so that most tiles cross into the index's high word

CASES: dict[str, tuple[Callable[[Any], Any], Callable[[Inputs], np.ndarray]]] = {
    "weighted_sum": (lambda i: ops.weighted_sum(i.stack, i.weight), reference_sum),
    "elect": (
        lambda i: ops.elect(i.stack, i.weight),
        lambda i: np.where(reference_sum(i) >= 0, 1, -1).astype(i.stack.dtype),
    ),
    "agreeing_sum": (lambda i: ops.agreeing_sum(i.stack, i.sign, i.weight), lambda i: reference_agreeing(i)[0]),
    "agreeing_mean": (lambda i: ops.agreeing_mean(i.stack, i.sign, i.weight), reference_mean),
    "trim": (
        lambda i: ops.trim(i.stack, i.weight),
        lambda i: np.where(np.abs(i.stack) >= i.weight, i.stack, i.stack.dtype.type(0)),
    ),
    "drop": (lambda i: ops.drop(i.stack, i.density, Rng(i.keys, START)), lambda i: reference_drop(i, i.density)),
    "drop_each": (lambda i: ops.drop(i.stack, i.chances, Rng(i.keys, START)), lambda i: reference_drop(i, i.chances)),
    "largest": (lambda i: ops.largest(i.stack), reference_largest),
    "clamp": (lambda i: ops.clamp(i.base, -1.5, 0.5), lambda i: np.clip(i.base, -1.5, 0.5)),
    "scale": (lambda i: ops.scale(i.base, 0.3), lambda i: i.base * i.base.dtype.type(0.3)),
    "scale_each": (lambda i: ops.scale(i.stack, i.weight), lambda i: i.stack * i.weight),
    "add": (lambda i: ops.add(i.base, i.sign), lambda i: i.base + i.sign),
    "subtract": (lambda i: ops.subtract(i.stack, i.base), lambda i: i.stack - i.base),
}
PER_MODEL = {"trim", "drop", "drop_each", "scale_each", "subtract"}


@st.composite
def inputs(draw: st.DrawFn) -> Inputs:
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    models = draw(st.integers(1, 4))
    shape = draw(st.sampled_from([(1,), (7,), (3, 5), (2, 0), (33,), (2, 3, 4)]))
    notable = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 1e-40, -1e-45, 1e15, -1e15])
    element = notable | st.floats(-1e3, 1e3, width=32)

    def array(of_shape: tuple[int, ...], values: st.SearchStrategy) -> np.ndarray:
        return draw(hnp.arrays(dtype, of_shape, elements=values))

    each = (models, *[1] * len(shape))
    return Inputs(
        stack=array((models, *shape), element),
        weight=array(each, notable | st.floats(-2, 2, width=32)),
        base=array(shape, element),
        sign=array(shape, st.sampled_from([1.0, -1.0])),
        density=draw(hnp.arrays(np.float64, each, elements=st.floats(0, 1))),
        chances=array((models, *shape), st.floats(0, 1, width=32)),
        keys=draw(hnp.arrays(np.uint64, models, elements=st.integers(0, 2**64 - 1))),
    )


def on_torch(i: Inputs, device: str) -> Inputs:
    moved = (torch.from_numpy(x.copy()).to(device) for x in (i.stack, i.weight, i.base, i.sign, i.density, i.chances))
    return Inputs(*moved, i.keys)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=60, deadline=None)
@given(i=inputs())
def test_numba_torch_and_numpy_give_the_same_bits(name, i):
    call, reference = CASES[name]
    before = [x.copy() for x in (i.stack, i.weight, i.base, i.sign, i.density, i.chances, i.keys)]
    result = call(i)
    same(result, reference(i))
    for x, was in zip((i.stack, i.weight, i.base, i.sign, i.density, i.chances, i.keys), before, strict=True):
        assert x.tobytes() == was.tobytes()
    for device in DEVICES:
        tensors = on_torch(i, device)
        same(call(tensors).cpu().numpy(), result)
        assert tensors.stack.cpu().numpy().tobytes() == i.stack.tobytes()
        assert tensors.base.cpu().numpy().tobytes() == i.base.tobytes()


def big(size: int, dtype: type = np.float32) -> Inputs:
    random = np.random.default_rng(5)
    return Inputs(
        stack=random.standard_normal((3, size)).astype(dtype),
        weight=np.array([[0.7], [-0.2], [0.4]], dtype),
        base=random.standard_normal(size).astype(dtype),
        sign=np.where(random.random(size) < 0.5, 1, -1).astype(dtype),
        density=np.array([[0.1], [0.5], [1.0]]),
        chances=random.random((3, size)).astype(dtype),
        keys=np.array([1, 2**63 + 5, 77], np.uint64),
    )


@pytest.mark.parametrize("device", ["numpy", *DEVICES])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_pieces_make_the_whole_past_the_length_of_vector_loops(name, dtype, device):
    i = big(10_007, dtype)
    call, reference = CASES[name]
    whole = call(i)
    if not name.startswith("drop"):
        same(whole, reference(i))
    if device != "numpy":
        same(call(on_torch(i, device)).cpu().numpy(), whole)
        return
    cuts = [0, 1, 64, 2047, 2050, 4096, 9_000, 10_007]
    parts = []
    for low, high in itertools.pairwise(cuts):
        stack, chances = (np.ascontiguousarray(x[:, low:high]) for x in (i.stack, i.chances))
        tile = Inputs(stack, i.weight, i.base[low:high], i.sign[low:high], i.density, chances, i.keys)
        density = {"drop": i.density, "drop_each": chances}.get(name)
        parts.append(call(tile) if density is None else ops.drop(stack, density, Rng(i.keys, START + low)))
    same(np.concatenate(parts, axis=-1), whole)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_by_hand(convert):
    stack = convert(np.array([[1.0, -4.0, 2.0, 0.0], [-3.0, 2.0, -2.0, 0.0], [1.0, 1.0, 0.0, -1.0]], np.float32))
    weight = convert(np.array([[1.0], [0.5], [2.0]], np.float32))
    sign = ops.elect(stack, weight)
    assert ops.weighted_sum(stack, weight).tolist() == [1.5, -1.0, 1.0, -2.0]
    assert sign.tolist() == [1, -1, 1, -1]
    assert ops.agreeing_sum(stack, sign, weight).tolist() == [3, -4, 2, -2]
    assert ops.agreeing_mean(stack, sign, weight).tolist() == [1, -4, 2, -1]
    assert ops.trim(stack, 2 * weight).tolist() == [[0, -4, 2, 0], [-3, 2, -2, 0], [0, 0, 0, 0]]
    assert ops.largest(stack).tolist() == [-3, -4, 2, -1]
    assert ops.clamp(stack[0], -1, 1).tolist() == [1, -1, 1, 0]
    assert ops.clamp(stack[0], 2, 2).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_the_mean_is_zero_where_the_agreeing_weights_cancel(convert):
    stack, weight = np.array([[2.0, 0.0], [-2.0, 0.0]], np.float32), np.array([[1.0], [-1.0]], np.float32)
    sign = np.array([1.0, 1.0], np.float32)
    assert ops.agreeing_mean(convert(stack), convert(sign), convert(weight)).tolist() == [0, 0]
    assert ops.agreeing_sum(convert(stack), convert(sign), convert(weight)).tolist() == [4, 0]


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_largest_does_not_see_the_order_of_models(convert):
    stack = np.array(
        [[0.0, -0.0, 2.0, -2.0, -5.0], [-0.0, 0.0, -2.0, 2.0, 4.0], [0.0, -0.0, 1.0, -2.0, 4.0]], np.float32
    )
    orders = [[0, 1, 2], [2, 1, 0], [1, 0, 2]]
    results = {np.asarray(ops.largest(convert(stack[order]))).tobytes() for order in orders}
    assert results == {np.array([0.0, 0.0, 2.0, 2.0, -5.0], np.float32).tobytes()}


@pytest.mark.parametrize(
    "make", [np.ones, lambda shape, dtype: torch.ones(shape, dtype=getattr(torch, np.dtype(dtype).name))]
)
def test_misuse_is_told(make):
    stack = make((2, 3), np.float32)
    rng = Rng(np.array([1, 2], np.uint64))
    with pytest.raises(ValueError, match="2 models, but 3 numbers"):
        ops.weighted_sum(stack, np.ones((3, 1), np.float32))
    with pytest.raises(ValueError, match="at least one model"):
        ops.weighted_sum(make((0, 3), np.float32), np.ones((0, 1), np.float32))
    with pytest.raises(TypeError, match="float16"):
        ops.weighted_sum(make((2, 3), np.float16), np.ones((2, 1), np.float32))
    with pytest.raises(ValueError, match=r"\[3\] beside such a stack, not \[2\]"):
        ops.subtract(stack, make((2,), np.float32))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        ops.drop(stack, np.array([[0.5], [1.5]]), rng)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        ops.drop(stack, np.array([[0.5], [np.nan]]), rng)
    with pytest.raises(ValueError, match=r"in \[0, 1\]; got 1.5"):
        ops.drop(stack, make((2, 3), np.float32) * 1.5, rng)
    with pytest.raises(ValueError, match=r"in \[0, 1\]; got -0.25"):
        ops.drop(stack, make((2, 3), np.float32) * -0.25, rng)
    with pytest.raises(ValueError, match=r"in \[0, 1\]; got nan"):
        ops.drop(stack, make((2, 3), np.float32) * float("nan"), rng)
    with pytest.raises(ValueError, match="2 models, but 3 densities"):
        ops.drop(stack, make((1, 3), np.float32), rng)
    with pytest.raises(ValueError, match="2 models, but 1 keys"):
        ops.drop(stack, np.array([[0.5], [0.5]]), Rng(rng.keys[:1]))
    with pytest.raises(ValueError, match="low <= high"):
        ops.clamp(stack, 1.0, 0.0)


@pytest.mark.parametrize("convert", [np.asarray, pytest.param("torch", id="torch")])
def test_a_density_for_each_entry_is_rounded_as_one_for_all_is(convert):
    """One of the numbers drawn lies between 2^32 times the density in float64 and in float32."""
    if convert == "torch":
        convert = pytest.importorskip("torch").from_numpy
    key, count = np.array([7], np.uint64), 1 << 13
    numbers = reference_bits(key, 0, count)[0]
    between = next(n for n in numbers if n > 2**31 and n % 256 > 128)  # float32 has steps of 256 there
    density = float(between) / 2.0**32
    assert int(density * 2**32) == between < int(np.float64(np.float32(density)) * 2**32)
    stack = convert(np.ones((1, count)))
    each = convert(np.full((1, count), density))
    kept = np.asarray(ops.drop(stack, each, Rng(key)))
    np.testing.assert_array_equal(kept, np.asarray(ops.drop(stack, convert(np.array([[density]])), Rng(key))))
    np.testing.assert_array_equal(kept[0] > 0, numbers < int(np.float64(np.float32(density)) * 2**32))


def test_anything_else_is_refused():
    with pytest.raises(TypeError, match="not list"):
        ops.largest([[1.0]])


def test_strided_inputs_are_taken_as_what_they_say():
    wide = np.random.default_rng(0).standard_normal((2, 3, 8)).astype(np.float32)
    weight = np.array([[[0.5]], [[2.0]]], np.float32)
    for view in (wide[:, :, ::2], wide.transpose(0, 2, 1), wide[:, :, 2:5]):
        same(ops.weighted_sum(view, weight), ops.weighted_sum(view.copy(), weight))
        same(ops.subtract(view, view[0]), view - view[0])


def test_weights_of_float64_are_rounded_to_the_stack():
    stack = np.ones((1, 2), np.float32)
    same(ops.weighted_sum(stack, np.array([[0.1]])), np.full(2, 0.1, np.float32))
    assert ops.weighted_sum(torch.from_numpy(stack), np.array([[0.1]])).dtype == torch.float32


def test_gradients_reach_stack_and_weight():
    stack = torch.tensor([[1.0, -4.0], [3.0, 2.0]], requires_grad=True)
    weight = torch.tensor([[0.5], [2.0]], requires_grad=True)
    ops.weighted_sum(stack, weight).sum().backward()
    assert stack.grad.tolist() == [[0.5, 0.5], [2.0, 2.0]]
    assert weight.grad.tolist() == [[-3.0], [5.0]]


def test_the_mean_has_finite_gradients_where_no_model_agrees():
    stack = torch.tensor([[1.0, 4.0], [3.0, 2.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [1.0]], requires_grad=True)
    ops.scale(ops.agreeing_mean(stack, torch.tensor([1.0, -1.0]), weight), 2.0).sum().backward()
    assert stack.grad.tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert weight.grad.isfinite().all()


def test_the_mean_has_finite_gradients_where_the_agreeing_weights_cancel():
    stack = torch.tensor([[2.0], [-2.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    ops.agreeing_mean(stack, torch.tensor([1.0]), weight).sum().backward()
    assert stack.grad.tolist() == weight.grad.tolist() == [[0.0], [0.0]]
