"""The numbers of mergekit 0.1.5, recipe by recipe, from what benchmarks/mergekit_golden.py kept of its outputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import plait

HERE = Path(__file__).parent
GOLDEN = np.load(HERE / "golden.npz")
META = json.loads(GOLDEN["meta"].tobytes())
RECIPES = sorted(path.stem for path in (HERE / "recipes").glob("*.yml"))
RELATIVE = 2e-6
"""Largest difference, as a part of the tensor's largest magnitude: some twenty float32 roundings."""

BEHIND_THE_LAYERS = ("model.norm.weight", "lm_head.weight")
EXCEPTIONS = {
    # A gradient's last value stands for what follows the last layer; mergekit gives norm and head the first.
    "linear_gradient": BEHIND_THE_LAYERS,
}
OWN_TEST = ("arcee_fusion", "dare_half")


@pytest.fixture(scope="module")
def merge(models, tmp_path_factory):
    """A function that merges one of the recipes and returns (output folder, its tensors)."""

    def run(name: str):
        folder = tmp_path_factory.mktemp(name)
        text = (HERE / "recipes" / f"{name}.yml").read_text()
        for model, path in models.items():
            text = text.replace("{" + model + "}", str(path))
        (folder / "recipe.yml").write_text(text)
        plait.merge(folder / "recipe.yml", folder / "out")
        shards = sorted((folder / "out").glob("*.safetensors"))
        return folder / "out", {name: value for shard in shards for name, value in load_file(shard).items()}

    return run


def test_inputs_are_the_ones_that_mergekit_merged(models, inputs) -> None:
    assert inputs.fingerprint(models) == META["inputs_sha256"]


def test_every_recipe_has_its_golden_output() -> None:
    assert sorted(META["recipes"]) == RECIPES
    assert META["mergekit"] == "0.1.5"
    assert set(EXCEPTIONS) <= set(RECIPES)


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in OWN_TEST])
def test_numbers_are_mergekits(recipe: str, merge, inputs) -> None:
    golden = META["recipes"][recipe]
    out, tensors = merge(recipe)
    assert {name: list(value.shape) for name, value in tensors.items()} == {
        name: shape for name, (shape, *_) in golden["tensors"].items()
    }
    assert {value.dtype for value in tensors.values()} == {np.dtype("float32")}
    assert json.loads((out / "config.json").read_text())["num_hidden_layers"] == golden["num_hidden_layers"]

    faults, compared = [], 0
    for name, (_, total, magnitude) in golden["tensors"].items():
        if name in EXCEPTIONS.get(recipe, ()):
            continue
        value = tensors[name]
        off = abs(value.sum(dtype=np.float64) - total) + abs(np.abs(value).sum(dtype=np.float64) - magnitude)
        if off > RELATIVE * magnitude:
            faults.append(f"{name}: its sums are off by {off / magnitude:.1e} of its magnitudes")
        if inputs.is_kept(name):
            expected = GOLDEN[f"{recipe}/{name}"]
            far = np.abs(inputs.kept_rows(value) - expected).max() / np.abs(expected).max()
            compared += 1
            if far > RELATIVE:
                faults.append(f"{name}: entries are off by up to {far:.1e} of the largest")
    assert not faults, f"{len(faults)} of {len(tensors)} tensors differ:\n" + "\n".join(faults)
    assert compared == sum(map(inputs.is_kept, tensors)) - len(EXCEPTIONS.get(recipe, ()))


def test_exception_a_gradient_ends_at_the_head(merge, inputs) -> None:
    """Where plait departs from mergekit it does what its documentation says: the last weights, 0.1 and 0.9."""
    _, tensors = merge("linear_gradient")
    for name in BEHIND_THE_LAYERS:
        first, second = (inputs.tensor(model, name, tensors[name].shape) for model in ("expert0", "expert1"))
        np.testing.assert_allclose(tensors[name], 0.1 * first + 0.9 * second, rtol=0, atol=1e-6)
        theirs = GOLDEN[f"linear_gradient/{name}"]
        assert np.abs(inputs.kept_rows(tensors[name]) - theirs).max() > 1e-3, "no exception is needed any more"


def test_exception_arcee_fusion_chooses_the_same_entries_but_for_those_at_the_threshold(merge, inputs) -> None:
    """mergekit's divergence has some 1e-4 of float32 noise, so an entry in a thousand falls on the other side."""
    _, tensors = merge("arcee_fusion")
    assert {name: list(value.shape) for name, value in tensors.items()} == {
        name: shape for name, (shape, *_) in META["recipes"]["arcee_fusion"]["tensors"].items()
    }
    entries = other = 0
    for name in filter(inputs.is_kept, tensors):
        expected, actual = GOLDEN[f"arcee_fusion/{name}"], inputs.kept_rows(tensors[name])
        first, second = (
            inputs.kept_rows(inputs.tensor(model, name, tensors[name].shape)) for model in ("expert0", "expert1")
        )
        assert ((actual == first) | (actual == second)).all()
        other += int((np.abs(actual - expected) > RELATIVE * np.abs(expected).max()).sum())
        entries += actual.size
    assert entries > 8000
    assert other <= entries / 1000


def test_random_masks_agree_in_count_and_norm(merge, inputs) -> None:
    """At density 0.5 either tool keeps half of the entries, and restores the L1 norm of the delta."""
    _, tensors = merge("dare_half")
    for layer in (0, 2):
        name = f"model.layers.{layer}.self_attn.k_proj.weight"
        shape = tensors[name].shape
        base, expert = (inputs.tensor(model, name, shape).astype(np.float64) for model in ("base", "expert0"))
        delta = expert - base
        changed = np.abs(delta) > 0
        five_sigma = 5 * 0.5 / np.sqrt(changed.sum())
        for merged in (tensors[name].astype(np.float64), GOLDEN[f"dare_half/{name}"].astype(np.float64)):
            moved = np.abs(merged - base) > 1e-7
            assert not (moved & ~changed).any()
            assert abs(moved.sum() / changed.sum() - 0.5) < five_sigma
            assert np.abs(merged - base).sum() == pytest.approx(np.abs(delta).sum(), rel=1e-4)
            factor = ((merged - base)[moved] / delta[moved]).round(2)
            assert np.ptp(factor) < 0.1, "all that is kept has one factor"
