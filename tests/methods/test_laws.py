"""Laws that every method keeps, whatever it computes."""

from __future__ import annotations

import numpy as np
import pytest
from drawing import drawn, every, merge, takes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import plait
from plait.methods import find_method, method_names

METHODS = method_names()
DELTA = [name for name in METHODS if find_method(name).sees.space == "deltas"]
DARE = [name for name in METHODS if find_method(name).random]
SPANS = [name for name in METHODS if find_method(name).locality == "span"]
ELEMENTWISE = [name for name in METHODS if find_method(name).locality == "element"]
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**32 - 1)
shapes = st.sampled_from([(), (1,), (7,), (3, 5), (2, 3, 4)])


@every(METHODS)
@few
@given(seed=seeds, k=st.integers(2, 4), shape=shapes)
def test_the_shape_is_kept_and_no_input_is_written(name, seed, k, shape):
    base, stack = drawn(seed, k, shape)
    before = base.tobytes(), stack.tobytes()
    base.flags.writeable = stack.flags.writeable = False
    merged = merge(name, stack, base)
    assert (type(merged), merged.shape, merged.dtype) == (np.ndarray, shape, np.float32)
    assert np.isfinite(merged).all()
    assert (base.tobytes(), stack.tobytes()) == before


@every(METHODS)
def test_a_tensor_without_entries_stays_one(name):
    for shape in ((0,), (0, 3), (3, 0)):
        empty = np.empty((3, *shape), np.float32)
        assert merge(name, empty, empty[0]).shape == shape


@every(METHODS, "copies")
@few
@given(seed=seeds, k=st.integers(2, 5), shape=shapes)
def test_equal_copies_give_that_one_back(name, seed, k, shape):
    """With weights that add up to 1, density 1 and scale 1 (slerp and Arcee Fusion: of a model that is the base)."""
    base, stack = drawn(seed, 1, shape)
    copies = np.repeat(stack, k, axis=0)
    method = find_method(name)
    whole = {"scale": 1} if "scale" in method.parameters else {}
    merged = merge(name, copies, stack[0] if method.base == "first" else base, **whole)
    # (a few roundings of a sum, of numbers as large as the base and the deltas)
    np.testing.assert_allclose(merged, stack[0], rtol=k * 2e-7, atol=k * 2e-7 * (np.abs(base).max() + 1))


@every(METHODS, "order")
@few
@given(seed=seeds, k=st.integers(2, 5), shape=shapes)
def test_the_order_of_the_models_does_not_matter(name, seed, k, shape):
    """Up to the order of float32 sums; exactly for MagMax. Slerp and Arcee Fusion tell the base from the model."""
    base, stack = drawn(seed, k, shape)
    order = np.random.default_rng(seed).permutation(k)
    weight = 0.5 + np.random.default_rng(seed + 1).random(k)
    values, turned = ({"weight": list(weight)}, {"weight": list(weight[order])}) if takes(name, "weight") else ({}, {})
    if takes(name, "density"):
        values |= {"density": 0.6}
        turned |= {"density": 0.6}
    merged, other = merge(name, stack, base, **values), merge(name, stack[order], base, **turned)
    if name == "magmax":
        assert merged.tobytes() == other.tobytes()
    if not takes(name, "density"):
        np.testing.assert_allclose(merged, other, rtol=1e-5, atol=2e-6)
    else:  # a vote that is a tie but for rounding may go either way
        assert (np.abs(merged - other) > 1e-5).mean() <= (0.02 if merged.size > 50 else 0)


@every(METHODS)
def test_the_same_seed_gives_the_same_bytes_and_another_another_mask(name):
    base, stack = drawn(3, 3, (40, 50))
    values = {"density": 0.5} if takes(name, "density") else {}
    first, again, other = (merge(name, stack, base, seed=seed, **values) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert (first.tobytes() != other.tobytes()) == (name in DARE)


@every(DARE)
def test_models_and_tensors_have_masks_of_their_own(name):
    base = np.zeros(4000, np.float32)
    random = np.random.default_rng(0)
    one, two = (random.uniform(1, 2, 4000).astype(np.float32) for _ in range(2))
    masks = []
    for tensor, model in (("a", one), ("b", one), ("a", two)):
        merged = plait.merge_tensors([{tensor: model}], name, base={tensor: base}, weight=1, density=0.5)
        masks.append(merged[tensor] != 0)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert 0.45 < (masks[i] == masks[j]).mean() < 0.55
    # …and neither k, the order nor a neighbour changes a model's
    values = {"density": 0.5, "rescale": "none"}
    pair = plait.merge_tensors([{"a": two}, {"a": one}], name, base={"a": base}, weight=[0, 1], **values)["a"]
    assert ((pair != 0) == masks[0]).all()


@every(DELTA, "base")
@few
@given(seed=seeds, k=st.integers(2, 4), shape=shapes, weight=st.floats(-2, 2))
def test_models_equal_to_the_base_give_the_base(name, seed, k, shape, weight):
    base, _ = drawn(seed, 1, shape)
    values = {"weight": weight} if takes(name, "weight") else {}
    values |= {"density": 0.5} if takes(name, "density") else {}
    values |= {"rescale": "l1"} if takes(name, "rescale") else {}
    assert (merge(name, np.repeat(base[None], k, axis=0), base, **values) == base).all()


@every(DELTA, "scale 0")
@few
@given(seed=seeds, k=st.integers(2, 4), shape=shapes)
def test_scale_0_or_density_0_gives_the_base(name, seed, k, shape):
    base, stack = drawn(seed, k, shape)
    assert (merge(name, stack, base, scale=0) == base).all()
    for rescale in ("none", "l1", "probability") if takes(name, "rescale") else ():
        assert (merge(name, stack, base, density=0, rescale=rescale) == base).all()


@few
@given(seed=seeds, k=st.integers(2, 4), factor=st.sampled_from([-4.0, -0.5, 0.25, 2.0]))
def test_weights_on_any_scale_average_alike_and_sums_follow_it(seed, k, factor):
    """By powers of two, exactly."""
    base, stack = drawn(seed, k, (9,))
    weight = 0.5 + np.random.default_rng(seed).random(k)
    assert (merge("linear", stack, base, weight=weight) == merge("linear", stack, base, weight=factor * weight)).all()
    plain = merge("linear", stack, base, weight=weight, normalize=False)
    assert (merge("linear", stack, base, weight=factor * weight, normalize=False) == factor * plain).all()
    assert (merge("linear", factor * stack, base, weight=weight, normalize=False) == factor * plain).all()


@every(ELEMENTWISE, "cutting")
@few
@given(seed=seeds, cut=st.integers(1, 29))
def test_elementwise_methods_commute_with_cutting_a_tensor(name, seed, cut):
    base, stack = drawn(seed, 3, (30,))
    parts = [merge(name, stack[:, part], base[part]) for part in (slice(cut), slice(cut, None))]
    assert np.concatenate(parts).tobytes() == merge(name, stack, base).tobytes()


@every(SPANS, "permuting")
@few
@given(seed=seeds)
def test_span_methods_commute_with_permuting_entries(name, seed):
    base, stack = drawn(seed, 3, (30,))
    order = np.random.default_rng(seed).permutation(30)
    turned = merge(name, stack[:, order], base[order])
    np.testing.assert_allclose(turned, merge(name, stack, base)[order], rtol=1e-5, atol=1e-6)


@few
@given(seed=seeds, shape=shapes)
def test_slerp_begins_at_the_base_and_ends_at_the_model(seed, shape):
    base, stack = drawn(seed, 1, shape)
    np.testing.assert_allclose(merge("slerp", stack, base, t=0), base, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(merge("slerp", stack, base, t=1), stack[0], rtol=1e-6, atol=1e-7)


@few
@given(seed=seeds, k=st.integers(2, 6))
def test_karcher_of_equal_norms_has_that_norm_and_balances_the_angles(seed, k):
    base, stack = drawn(seed, k, (40,))
    units = 3 * stack / np.linalg.norm(stack, axis=1, keepdims=True)
    merged = merge("karcher", units, base, max_iter=50, tol=1e-9).astype(np.float64)
    assert np.linalg.norm(merged) == pytest.approx(3, rel=1e-5)
    # the mean is where the logarithms of all models add up to nothing
    mean, wide = merged / np.linalg.norm(merged), units.astype(np.float64) / 3
    cosine = np.clip(wide @ mean, -1, 1)[:, None]
    angle = np.arccos(cosine)
    logs = (wide - cosine * mean) * angle / np.maximum(np.sin(angle), 1e-12)
    assert np.linalg.norm(logs.sum(axis=0)) < 1e-4


@few
@given(seed=seeds, weight=st.floats(0.25, 4), shape=shapes)
def test_ties_of_one_whole_model_is_task_arithmetic(seed, weight, shape):
    base, stack = drawn(seed, 1, shape)
    ties = merge("ties", stack, base, weight=weight, normalize=False, scale=0.5)
    assert (ties == merge("task_arithmetic", stack, base, weight=weight, scale=0.5)).all()


@every(["none", "l1", "probability"])
def test_dare_is_task_arithmetic_on_average(name):
    """Over 600 seeds the mean is the sum of the deltas, or its kept fraction, within five standard errors."""
    base, stack = np.zeros(50, np.float32), drawn(5, 2, (50,))[1]
    weight, density, seeds_ = [1.0, 0.5], 0.4, 600
    total = np.zeros(50)
    for seed in range(seeds_):
        total += merge("dare_linear", stack, base, seed=seed, weight=weight, density=density, rescale=name)
    expected = merge("task_arithmetic", stack, base, weight=weight) * (density if name == "none" else 1)
    spread = np.sqrt(((np.array(weight)[:, None] * stack) ** 2).sum(axis=0) * (1 / density - 1) / seeds_)
    # (the ratio of norms is right on average only up to a term of order 1/n)
    slack = 0.06 * np.abs(stack).sum(axis=0) if name == "l1" else 1e-6
    assert (np.abs(total / seeds_ - expected) <= 5 * spread + slack).all()


@few
@given(
    stack=hnp.arrays(np.float32, (3, 20), elements=st.floats(-4, 4, width=16)),
    base=hnp.arrays(np.float32, 20, elements=st.floats(-4, 4, width=16)),
)
def test_magmax_is_the_largest_of_any_numbers(stack, base):
    delta = stack - base
    high, low = delta.max(axis=0), delta.min(axis=0)
    expected = base + np.where(high >= -low, high, low)
    assert (merge("magmax", stack, base, scale=1) == expected).all()
