"""TIES, DARE, DELLA, Breadcrumbs, CABS: what golden cases cannot tell. Masks, laws of chance, variants, one call."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import xxhash
from golden.della import RANKED
from hypothesis import given, settings
from hypothesis import strategies as st

import plait
from plait.errors import PlaitError
from plait.methods import find_method
from plait.methods.describe import as_markdown, describe
from plait.ops import Rng, rng_key
from plait.ops.fusing import merging

few = settings(max_examples=25, deadline=None)
SHARES = st.floats(0, 1, width=16)  # times such sizes, they are exact in float32, too
seeds = st.integers(0, 2**32 - 1)


def merge(name: str, stack, base=None, *, seed: int = 0, **values) -> np.ndarray:
    models = [{"w": np.asarray(model, np.float32)} for model in stack]
    base = np.zeros_like(models[0]["w"]) if base is None else np.asarray(base, np.float32)
    return plait.merge_tensors(models, name, base={"w": base}, seed=seed, **values)["w"]


def random_numbers(seed: int, values) -> np.ndarray:
    """Numbers in [0, 1) for a model's entries, by the definition in plait.ops.rng, in Python's integers."""

    def mix(x: int) -> int:
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x = (x ^ x >> shift) * factor % 2**32
        return x ^ x >> 16

    array = np.array(values, np.float32)
    content = xxhash.xxh3_128(repr(("F32", array.shape)).encode() + array.tobytes()).digest()
    key = rng_key(seed, "w", content)
    low, high = key % 2**32, key >> 32
    drawn = [mix(mix(index ^ low ^ mix(0)) ^ high ^ mix(0x9E3779B9)) / 2**32 for index in range(array.size)]
    return np.reshape(drawn, array.shape)


def test_the_masks_of_the_golden_cases():
    chance = {0: 0.1, 1: 0.1 + 0.8 / 3, 2: 0.1 + 1.6 / 3, 3: 0.9}
    for values, kept in zip(RANKED, ([4, -4], [-2, 5, 3, 4]), strict=True):
        table = np.array(values)
        chances = np.vectorize(chance.get)(np.abs(table).argsort(axis=1).argsort(axis=1))
        assert table[random_numbers(0, values) < chances].tolist() == kept
    assert np.flatnonzero(random_numbers(1, [1] * 8) >= 0.8).tolist() == [2, 5, 7]


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_della_keeps_by_rank_what_mergekit_keeps():
    """mergekit 0.1.5 kept 0.2525, 0.3527, 0.4523 and 0.5452 of the quarters by rank, over 60 seeds of such a matrix."""
    delta, seeds_ = drawn(3, 64, 256), 20
    ranks = np.abs(delta).argsort(axis=1).argsort(axis=1)
    kept = np.zeros(delta.shape)
    for seed in range(seeds_):
        kept += merge("della_linear", [delta], seed=seed, weight=1, density=0.4, epsilon=0.2) != 0
    quarters = [kept[ranks // 64 == quarter].mean() / seeds_ for quarter in range(4)]
    chances = [0.2 + 0.4 * (64 * quarter + 31.5) / 255 for quarter in range(4)]
    error = 0.5 / np.sqrt(64 * 64 * seeds_)
    assert np.abs(np.subtract(quarters, chances)).max() < 4 * error
    assert np.abs(np.subtract(quarters, [0.2525, 0.3527, 0.4523, 0.5452])).max() < 6 * error


@few
@given(seed=seeds, shape=st.sampled_from([(30, 20), (600,), (1, 600), (600, 1), (5, 6, 20)]))
def test_della_restores_the_norm_of_the_tensor(seed, shape):
    delta = drawn(seed, *shape)
    merged = merge("della", [delta], seed=seed, weight=1, density=0.5, epsilon=0.3)
    assert np.abs(merged).sum(dtype=np.float64) == pytest.approx(np.abs(delta).sum(dtype=np.float64), rel=1e-5)
    factor = merged[merged != 0] / delta[merged != 0]
    assert np.ptp(factor) < 1e-5 * factor.max()


def test_della_divided_by_its_chances_is_right_on_average():
    delta, seeds_ = drawn(5, 4, 30), 800
    values = {"weight": 1, "density": 0.5, "epsilon": 0.3, "rescale": "probability"}
    mean = sum(merge("della_linear", [delta], seed=seed, **values) for seed in range(seeds_)) / seeds_
    ranks = np.abs(delta).argsort(axis=1).argsort(axis=1)
    chances = 0.2 + 0.6 * ranks / 29
    spread = np.abs(delta) * np.sqrt((1 / chances - 1) / seeds_)
    assert (np.abs(mean - delta) < 5 * spread).all()


def test_della_without_a_window_is_dare():
    delta = drawn(6, 3, 40, 50)
    for other, values in (("dare_linear", {}), ("dare_ties", {})):
        name = other.replace("dare", "della").removesuffix("_ties")
        rest = {"weight": [1, 0.5, -0.3], "density": [0.5, 0.2, 1], "normalize": False, **values}
        one, two = merge(name, delta, epsilon=0, **rest), merge(other, delta, **rest)
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("density", "epsilon"), [(0.1, 0.15), (0.9, 0.15)])
def test_chances_beyond_0_and_1_are_refused(density, epsilon):
    with pytest.raises(PlaitError, match=r"density 0\.\d and epsilon 0\.15 .* from (-0\.05 to 0\.25|0\.75 to 1\.05)"):
        merge("della", [[1, 2]], weight=1, density=density, epsilon=epsilon)
    merge("della", [[1, 2]], weight=1, density=1, epsilon=epsilon)


def test_rows_of_one_and_scalars_are_kept_with_the_density():
    kept = merge("della_linear", [np.ones((4000, 1))], weight=1, density=0.7, epsilon=0.3, rescale="none").mean()
    assert abs(kept - 0.7) < 0.04
    for name in ("della", "della_linear", "breadcrumbs", "breadcrumbs_ties", "cabs"):
        assert merge(name, [np.float32(2), np.float32(2)], weight=0.5).shape == ()


@few
@given(seed=seeds, k=st.integers(1, 4), m=st.integers(1, 9), data=st.data())
def test_cabs_keeps_n_of_each_m_for_every_model_and_none_twice(seed, k, m, data):
    n = data.draw(st.integers(1, m))
    stack = drawn(seed, k, 3, 4 * m)
    parts = [merge("cabs", stack, weight=np.eye(k)[i].tolist(), n=n, m=m) for i in range(k)]
    counts = [(part != 0).reshape(3, 4, m).sum(axis=-1) for part in parts]
    assert all((count == max(0, min(n, m - i * n))).all() for i, count in enumerate(counts))
    assert (sum(part != 0 for part in parts) <= 1).all()
    total = merge("cabs", stack, weight=1, n=n, m=m)
    assert (total == sum(parts)).all()


def test_n_of_fewer_is_refused():
    with pytest.raises(PlaitError, match="n = 3 of m = 2"):
        merge("cabs", [[1, 2]], weight=1, n=3, m=2)


@few
@given(seed=seeds, density=SHARES, gamma=SHARES, size=st.integers(1, 300))
def test_breadcrumbs_keeps_as_many_as_it_should(seed, density, gamma, size):
    delta = drawn(seed, size)
    values = {"weight": 1, "density": density, "gamma": gamma}
    kept = np.flatnonzero(merge("breadcrumbs", [delta], **values))
    count, outliers = int(density * size), int(gamma * size)
    outliers = min(outliers, size - count) if density < 1 else 0
    order = np.argsort(-np.abs(delta))
    assert sorted(kept) == sorted(order[outliers : outliers + count])
    kept = np.flatnonzero(merge("breadcrumbs", [delta], per="row", **values))
    assert sorted(kept) == sorted(order[int(gamma * size) :][:count])


def test_breadcrumbs_without_outliers_is_ties_of_one_model():
    delta = drawn(1, 30, 40)
    for density in (0.9, 0.25):
        one = merge("breadcrumbs", [delta], weight=1, density=density, gamma=0)
        assert (one == merge("ties", [delta], weight=1, density=density)).all()


def test_breadcrumbs_in_rows_does_the_same_to_each():
    delta = drawn(2, 2, 6, 50)
    values = {"weight": [1, -0.5], "density": 0.5, "gamma": 0.1}
    whole = merge("breadcrumbs", delta, per="row", **values)
    rows = [merge("breadcrumbs", delta[:, i], per="tensor", **values) for i in range(6)]
    assert (whole == np.stack(rows)).all()


def test_votes_without_weights_and_with_equal_ones_agree():
    stack = drawn(3, 4, 500)
    weighted = merge("ties", stack, weight=0.25, density=0.5)
    for values in (
        {"vote": "total"},
        {"merge": "count", "weight": 1},
        {"vote": "total", "merge": "count", "weight": 1},
    ):
        other = merge("ties", stack, **{"weight": 0.25, "density": 0.5, **values})
        np.testing.assert_allclose(other, weighted, rtol=1e-6, atol=1e-7)


@few
@given(seed=seeds, k=st.integers(2, 4))
def test_turning_all_models_around_turns_the_majority_around(seed, k):
    """With votes of 0 to the majority, plus and minus are alike; with votes of 0 to plus they are not."""
    stack = np.random.default_rng(seed).integers(-2, 3, (k, 60)).astype(np.float32)
    total = np.sign(stack.sum(axis=0)).sum()
    for vote in ("weighted", "frequency"):
        if vote == "frequency":
            total = np.sign(np.sign(stack).sum(axis=0)).sum()
        for merge_ in ("mean", "sum", "count", "max"):
            values = {"weight": 1, "merge": merge_, "zero_vote": "majority", "vote": vote}
            there, back = merge("ties", stack, **values), merge("ties", -stack, **values)
            if total != 0:
                assert (there == -back).all()


SPARSE = ["ties", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties", "della", "cabs"]


@pytest.mark.parametrize("factor", [1e-4, 1e4])
@pytest.mark.parametrize("name", SPARSE)
def test_small_and_large_models_merge_alike(name, factor):
    stack = drawn(4, 3, 20, 40)
    values = {"density": 0.5, "epsilon": 0.3, "gamma": 0.1, "rescale": "l1", "n": 2, "m": 8}
    values = {key: value for key, value in values.items() if key in find_method(name).parameters}
    # (a power of two, so that the mask, which the content decides, is all that could differ)
    power = 2.0 ** round(np.log2(factor))
    one, other = (merge(name, scaled, weight=[1, 0.5, 0.25], **values) for scaled in (stack, power * stack))
    if find_method(name).random:
        assert np.abs(other).sum() == pytest.approx(power * np.abs(one).sum(), rel=0.1)
    else:
        assert (other == power * one).all()


def arguments(name: str, **given_) -> dict:
    method = find_method(name)
    values = {**method.defaults_of(given_.get("variant", "")), "weight": 1.0, **given_}
    values.pop("variant", None)
    columns = {key: np.full((2, 1), values[key]) for key in ("weight", "density", "trim", "gamma") if key in values}
    measured = {key: np.ones((2, 1)) for key in method.measured} | {"majority": np.ones((1, 1))}
    known = {**{key: measured[key] for key in method.measured}, **values, **columns}
    return known | ({method.random: Rng(np.array([1, 2], np.uint64))} if method.random else {})


ONE_CALL = [
    ("ties", {}),
    ("ties", {"density": 0.3, "merge": "sum", "rescale": "l1"}),
    ("ties", {"variant": "paper"}),
    ("ties", {"variant": "paper", "majority": -np.ones((1, 1))}),
    ("dare_linear", {"density": 0.3}),
    ("dare_linear", {"variant": "paper"}),
    ("dare_ties", {"density": 0.3}),
    ("dare_ties", {"density": 0.3, "merge": "mean", "rescale": "probability", "vote": "total"}),
    ("breadcrumbs", {"density": 0.3, "highest": np.full((2, 1), np.inf)}),
    ("breadcrumbs_ties", {"density": 0.3, "highest": np.full((2, 1), np.inf)}),
    ("breadcrumbs", {"density": 0.3}),
]


@pytest.mark.parametrize(("name", "values"), ONE_CALL)
def test_all_forms_are_written_as_one_loop(name, values):
    assert merging(partial(find_method(name).run, **arguments(name, **values)), 2) is not None


def test_a_variant_is_shown_where_defaults_are():
    shown = describe("ties")
    assert "variant  mergekit | paper; default mergekit" in shown
    assert "density  a number from 0 to 1, one a model; default 1, 0.2 with variant: paper" in shown
    assert "weight  a number, one a model; required, 1 with variant: paper" in shown
    assert "| `scope` | tensor \\| model | `tensor`; paper: `model` |" in as_markdown()


def test_what_is_set_wins_over_the_variant():
    delta = [[4.0, 3.0, 2.0, 1.0, 0.5]]
    assert merge("ties", delta, variant="paper").tolist() == [4, 0, 0, 0, 0]
    assert merge("ties", delta, variant="paper", density=0.4, weight=2, merge="sum").tolist() == [8, 6, 0, 0, 0]
    with pytest.raises(PlaitError, match="ties needs weight"):
        merge("ties", delta, variant="mergekit")
    with pytest.raises(PlaitError, match="variant = 'ours'; expected one of mergekit, paper"):
        merge("ties", delta, variant="ours")
