"""What methods of angles, lengths and distances keep besides the laws of all methods."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import plait
from plait.methods import find_method

few = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
ROWS = {"nuslerp_flatten": False}
COLUMNS = {"nuslerp_flatten": False, "nuslerp_row_wise": True}
SCALED = {
    "slerp": {"t": 0.3},
    "nuslerp": {"weight": [1, 3]},
    "multislerp": {"weight": [1, 3]},
    "karcher": {"weight": [1, 3]},
    "model_stock": {},
    "geometric_median": {"weight": [2, 1, 2]},
    "metagpt": {},
    "varm": {},
    "perpendicular": {"weight": [1, 0.5]},
    "add_difference": {},
}


def merge(name: str, stack: np.ndarray, base: np.ndarray | None = None, **parameters) -> np.ndarray:
    given_base = None if base is None else {"w": np.asarray(base)}
    return plait.merge_tensors([{"w": np.asarray(model)} for model in stack], name, base=given_base, **parameters)["w"]


def drawn(seed: int, k: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    base = random.standard_normal(shape)
    return base.astype(np.float32), (base + 0.3 * random.standard_normal((k, *shape))).astype(np.float32)


@pytest.mark.parametrize("name", SCALED)
@few
@given(seed=seeds, factor=st.sampled_from([1e-4, 1e4, 2.0**-60]))
def test_models_on_another_scale_give_the_same_on_that_scale(name, seed, factor):
    base, stack = drawn(seed, len(SCALED[name].get("weight", [1, 1])), (6, 5))
    if name == "slerp":
        stack = stack[:1]
    given_base = base if find_method(name).base in {"first", "required"} else None
    merged = merge(name, stack, given_base, **SCALED[name])
    scaled = merge(
        name,
        (np.float64(factor) * stack).astype(np.float32),
        None if given_base is None else (np.float64(factor) * base).astype(np.float32),
        **SCALED[name],
    )
    np.testing.assert_allclose(scaled / np.float64(factor), merged, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-45, -1e-45], [1e38, 1e38], [5.0, -5.0], [5.0, 5.0]])
def test_degenerate_tensors_give_numbers(name, values):
    """Zeros, denormals, the largest, opposite ones and equal ones, of one entry and of none of dimensions."""
    for shape in ((), (1,), (1, 1), (3, 1)):
        stack = np.stack([np.full(shape, value, np.float32) for value in values])
        method, parameters = find_method(name), dict(SCALED[name])
        if "weight" in parameters:
            parameters["weight"] = [1, 3]
        given_base = np.zeros(shape, np.float32) if method.base in {"first", "required"} else None
        models = stack[: method.max_models - (method.base == "first")] if method.max_models else stack
        assert np.isfinite(merge(name, models, given_base, **parameters)).all()


@pytest.mark.parametrize("variant", [{}, ROWS, COLUMNS])
@few
@given(seed=seeds, shape=st.sampled_from([(), (1,), (7,), (3, 5), (2, 3, 4)]))
def test_nuslerp_turned_round_is_the_same(variant, seed, shape):
    base, stack = drawn(seed, 2, shape)
    for origin in (None, base):
        there = merge("nuslerp", stack, origin, weight=[1, 3], **variant)
        back = merge("nuslerp", stack[::-1], origin, weight=[3, 1], **variant)
        np.testing.assert_allclose(there, back, rtol=1e-5, atol=1e-6)
        for copies in (stack[[0, 0]], stack[[1, 1]]):
            np.testing.assert_allclose(
                merge("nuslerp", copies, origin, weight=[1, 3], **variant), copies[0], rtol=1e-5, atol=1e-6
            )


@few
@given(seed=seeds)
def test_nuslerp_by_vectors_is_nuslerp_of_each_vector(seed):
    _, stack = drawn(seed, 2, (2, 3, 4))
    rows, columns = (merge("nuslerp", stack, weight=[1, 3], **variant) for variant in (ROWS, COLUMNS))
    for i, j in np.ndindex(2, 3):
        alone = merge("nuslerp", stack[:, i, j], weight=[1, 3])
        np.testing.assert_allclose(rows[i, j], alone, rtol=1e-5, atol=1e-6)
    for j, n in np.ndindex(3, 4):
        alone = merge("nuslerp", stack[:, :, j, n], weight=[1, 3])
        np.testing.assert_allclose(columns[:, j, n], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "variant"), [("nuslerp", {}), ("nuslerp", ROWS), ("nuslerp", COLUMNS), ("multislerp", {})]
)
@few
@given(seed=seeds)
def test_a_base_that_is_subtracted_is_where_models_that_equal_it_stay(name, variant, seed):
    base, stack = drawn(seed, 2, (4, 3))
    assert (merge(name, np.stack([base, base]), base, weight=[1, 3], **variant) == base).all()
    deltas = merge(name, stack - base, weight=[1, 3], **variant)
    np.testing.assert_allclose(merge(name, stack, base, weight=[1, 3], **variant), base + deltas, rtol=1e-5, atol=1e-6)
    far = merge(name, stack, weight=[1, 3], **variant)
    assert np.abs(merge(name, stack, base, weight=[1, 3], **variant) - far).max() > 1e-4


@few
@given(seed=seeds, k=st.integers(2, 6), size=st.integers(1, 12))
def test_no_point_near_the_geometric_median_is_nearer_to_all(seed, k, size):
    random = np.random.default_rng(seed)
    stack = random.standard_normal((k, size)) * random.uniform(0.1, 3, (k, 1)) + 10 * random.standard_normal(size)
    weight = random.uniform(0.5, 1.5, k)

    def total(point: np.ndarray) -> float:
        return float(weight @ np.linalg.norm(stack - point, axis=1))

    median = merge("geometric_median", stack, weight=weight)
    others = [total(median + 1e-3 * random.standard_normal(size)) for _ in range(20)]
    assert total(median) <= min([*others, *map(total, stack), total(stack.mean(axis=0))]) + 1e-9


def test_far_from_zero_two_models_still_pull_alike():
    """Of nearly equal models their Gram matrix has few digits left; whatever they say, neither outweighs the other."""
    for seed in range(10):
        random = np.random.default_rng(seed)
        stack = 1e5 + random.standard_normal((2, 300))
        np.testing.assert_allclose(merge("geometric_median", stack), stack.mean(axis=0), rtol=1e-9)


def test_karcher_with_whole_numbers_for_weights_is_that_of_copies():
    _, stack = drawn(4, 3, (20,))
    weighted = merge("karcher", stack, weight=[3, 1, 2], max_iter=50, tol=1e-10)
    copies = merge("karcher", stack[[0, 0, 0, 1, 2, 2]], max_iter=50, tol=1e-10)
    np.testing.assert_allclose(weighted, copies, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "weight", "told"),
    [
        ("karcher", [0, 0], "all weights are 0"),
        ("geometric_median", [0, 0], "all weights are 0"),
        ("multislerp", [1, -1], "the weights add up to 0"),
        ("linear", [1, -1], r"the weights \[1.0, -1.0\] add up to 0 and are divided by their sum"),
        ("linear", [0.1, 0.2, -0.3], "add up to 0"),
    ],
)
def test_weights_without_a_mean_are_refused(name, weight, told):
    with pytest.raises(plait.PlaitError, match=told):
        merge(name, drawn(0, len(weight), (3,))[1], weight=weight)


@pytest.mark.parametrize("name", ["karcher", "geometric_median"])
def test_negative_weights_are_refused(name):
    with pytest.raises(plait.PlaitError, match="0 or more"):
        merge(name, drawn(0, 2, (3,))[1], weight=[1, -1])


def test_rows_are_cut_along_the_last_axis_in_files_as_in_memory(tmp_path):
    """A tensor of three dimensions, through the whole engine, with a base and without."""
    from safetensors.numpy import load_file, save_file

    base, stack = drawn(3, 2, (3, 4, 70))
    for name, tensor in zip(("base", "a", "b"), (base, *stack), strict=True):
        (tmp_path / name).mkdir()
        save_file({"w": tensor}, tmp_path / name / "model.safetensors")
    for number, (origin, variant) in enumerate((o, v) for o in (None, base) for v in ({}, ROWS, COLUMNS)):
        settings_ = "".join(f"  {key}: {str(value).lower()}\n" for key, value in variant.items())
        text = "models:\n" + "".join(
            f"  - model: {tmp_path / m}\n    parameters: {{weight: {w}}}\n" for m, w in (("a", 1), ("b", 3))
        )
        text += "merge_method: nuslerp\ndtype: float32\n" + (f"parameters:\n{settings_}" if variant else "")
        text += f"base_model: {tmp_path / 'base'}\n" if origin is not None else ""
        (tmp_path / "recipe.yml").write_text(text)
        plait.merge(tmp_path / "recipe.yml", tmp_path / f"out{number}", verify=False)
        made = load_file(next((tmp_path / f"out{number}").glob("*.safetensors")))["w"]
        np.testing.assert_array_equal(made, merge("nuslerp", stack, origin, weight=[1, 3], **variant))
