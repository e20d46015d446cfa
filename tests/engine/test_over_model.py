"""`scope: model`: several measures that build on each other, and Gram matrices, over all tensors, whatever the cut."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import pytest

import plait
from plait import ops
from plait.checkpoint import open_checkpoint
from plait.engine.memory_merge import load_arrays
from plait.methods import Array, Coefficients, Deltas, DeltasGram, Density, Random, Scale, Weight, Weights, method
from plait.methods.measures import extremes, kept_norm, magnitude_threshold, signed_quantile, summed
from plait.methods.method import _METHODS
from plait.methods.vocabulary import Parameter, Scope
from plait.planning.totals import passes

seen: dict[str, list[np.ndarray]] = {}
Gain = Annotated[float, Parameter(float, "A factor.")]
Shrunk = Annotated[Array, kept_norm(lambda deltas, p, rng: ops.drop(deltas, p["density"], rng))]
Norm = Annotated[Array, summed(lambda deltas, p, _: abs(deltas) * p["shrunk"], scoped=True, reads=())]
Range = Annotated[Array, extremes(lambda deltas, p, _: deltas / p["norm"], scoped=True)]
Cut = Annotated[Array, magnitude_threshold(lambda deltas, p, _: deltas / p["norm"], lambda p: p["density"])]
Middle = Annotated[
    Array, signed_quantile(lambda deltas, p, rng: ops.drop(deltas, p["density"], rng)[0], lambda p: p["gain"])
]


@pytest.fixture(autouse=True)
def own_methods():
    """Enter two methods for one test: one that measures all it can, and a span method."""
    before = dict(_METHODS)
    seen.clear()

    @method(paper="https://example.org", locality="measured")
    def manifold(
        deltas: Deltas,
        *,
        rng: Random,
        shrunk: Shrunk,
        norm: Norm,
        extent: Range,
        cut: Cut,
        middle: Middle,
        weight: Weight = 1.0,
        density: Density = 0.5,
        rescale: Annotated[str, Parameter(str, "As always.", choices=("l1", "none"))] = "l1",
        gain: Gain = 0.3,
        scope: Scope = "tensor",
    ) -> Array:
        """Use them all."""
        del rng, density, rescale, scope
        for name, value in {"shrunk": shrunk, "norm": norm, "extent": extent, "cut": cut, "middle": middle}.items():
            seen.setdefault(name, []).append(np.asarray(value, np.float64).reshape(-1))
        width = 1 + extent[1] - extent[0]
        kept = ops.where(abs(deltas) >= cut * norm, deltas, 0 * deltas) * (1 / (norm * width)) * shrunk
        return ops.weighted_sum(kept, weight) * gain + middle

    @method(paper="https://example.org", locality="span")
    def by_size(gram: DeltasGram, *, scale: Scale = 1.0, scope: Scope = "tensor") -> Coefficients:
        """Weigh by the squared norm."""
        del scope
        seen.setdefault("gram", []).append(np.asarray(gram))
        sizes = np.diag(gram)
        return scale * sizes / sizes.sum()

    yield
    _METHODS.clear()
    _METHODS.update(before)


MANIFOLD = """
models: [{{model: a, parameters: {{weight: 0.7, density: 0.4}}}}, {{model: b, parameters: {{density: 0.6}}}}]
merge_method: manifold
base_model: base
parameters: {{scope: {scope}, gain: 0.4}}
seed: 3
"""
BY_SIZE = """
models: [{{model: a}}, {{model: b}}]
merge_method: by_size
base_model: base
parameters: {{scope: {scope}, scale: {scale}}}
"""


def contents(folder) -> dict[str, np.ndarray]:
    return load_arrays(open_checkpoint(folder))


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(one[key].tobytes() == other[key].tobytes() for key in one)


@pytest.mark.parametrize("scope", ["tensor", "model"])
@pytest.mark.parametrize("device", ["cpu", "torch:cpu"])
def test_the_same_however_it_is_cut_and_in_memory(scope, device, models, recipe, tmp_path, small):
    if device != "cpu":
        pytest.importorskip("torch")
    models()
    path = recipe(MANIFOLD.format(scope=scope))
    plait.merge(path, tmp_path / "one", threads=1, device=device)
    plait.merge(path, tmp_path / "three", threads=3)
    base, a, b = (contents(tmp_path / name) for name in ("base", "a", "b"))
    values = {"weight": [0.7, 1.0], "density": [0.4, 0.6], "gain": 0.4, "scope": scope}
    merged = plait.merge_tensors([a, b], "manifold", base=base, seed=3, **values)
    assert same(contents(tmp_path / "one"), contents(tmp_path / "three"))
    assert same(contents(tmp_path / "one"), merged)


def test_shards_and_larger_tiles_change_nothing(write, recipe, tmp_path, monkeypatch):
    path = recipe(MANIFOLD.format(scope="model"))
    for seed, name in enumerate(("base", "a", "b")):
        write(name, seed)
    plait.merge(path, tmp_path / "whole")
    monkeypatch.setattr("plait.engine.device.Cpu.batch", 4096)
    monkeypatch.setattr("plait.engine.device.Cpu.tile", 4096)
    for name in ("base", "a", "b"):
        (tmp_path / name).rename(tmp_path / f"whole {name}")
    for seed, name in enumerate(("base", "a", "b")):
        write(name, seed, shards=3)
    plait.merge(path, tmp_path / "cut", shard_size=100_000)
    assert same(contents(tmp_path / "whole"), contents(tmp_path / "cut"))


def test_each_builds_on_what_comes_before_it(models, recipe, tmp_path):
    models()
    plait.merge(recipe(MANIFOLD.format(scope="model")), tmp_path / "out", threads=1, verify=False)
    base, a, b = (contents(tmp_path / name) for name in ("base", "a", "b"))
    deltas = {name: np.stack([a[name] - base[name], b[name] - base[name]]).reshape(2, -1) for name in base}
    for name in ("norm", "extent", "cut", "middle"):
        assert len({tuple(value) for value in seen[name]}) == 1, "one value for all tensors"
    assert len({tuple(value) for value in seen["shrunk"]}) > 5, "each tensor has its own"
    everything = np.concatenate(list(deltas.values()), axis=1)
    norm, low_high, cut = seen["norm"][0], seen["extent"][0].reshape(2, 2), seen["cut"][0]
    ratios = everything / norm.astype(np.float32)[:, None]
    assert norm[0] > 1.5 * np.abs(everything[0]).sum()
    assert low_high.tolist() == [ratios.min(axis=1).tolist(), ratios.max(axis=1).tolist()]
    ranks = [math.floor(d * everything.shape[1]) for d in (0.4, 0.6)]
    assert cut.tolist() == [np.sort(np.abs(row))[-rank] for row, rank in zip(ratios, ranks, strict=True)]
    assert seen["middle"][0].tolist() == [0.0] or abs(seen["middle"][0][0]) < 0.05


def test_a_gram_matrix_over_the_model_is_the_sum_of_the_tensors(models, recipe, tmp_path, small):
    models()
    grams = {}
    for scope in ("tensor", "model"):
        seen.clear()
        plait.merge(recipe(BY_SIZE.format(scope=scope, scale=0.5)), tmp_path / scope, threads=2)
        grams[scope] = seen["gram"]
    total = [[math.fsum(gram[i, j] for gram in grams["tensor"]) for j in range(2)] for i in range(2)]
    assert all(np.array_equal(gram, grams["model"][0]) for gram in grams["model"])
    np.testing.assert_allclose(grams["model"][0], total, rtol=1e-14)
    base, a, b = (contents(tmp_path / name) for name in ("base", "a", "b"))
    merged = plait.merge_tensors([a, b], "by_size", base=base, scope="model", scale=0.5)
    assert same(contents(tmp_path / "model"), merged)
    assert not same(contents(tmp_path / "model"), contents(tmp_path / "tensor"))


def test_other_parameters_are_another_group(models, recipe, tmp_path):
    models()
    scale = "[{filter: mlp, value: 0.5}, {value: 1.0}]"
    plait.merge(recipe(BY_SIZE.format(scope="model", scale=scale)), tmp_path / "out", threads=1, verify=False)
    base, a = contents(tmp_path / "base"), contents(tmp_path / "a")
    expected = {
        round(sum(float(((a[k] - base[k]).astype(float) ** 2).sum()) for k in base if ("mlp" in k) == mlp), 6)
        for mlp in (True, False)
    }
    assert {round(float(gram[0, 0]), 6) for gram in seen["gram"]} == expected


def test_what_a_plan_says_of_passes(models, recipe, tmp_path):
    models(shapes={"model.layers.0.w": (300, 1000)})
    for scope in ("tensor", "model"):
        (step,) = plait.plan(recipe(MANIFOLD.format(scope=scope))).steps
        assert passes(step) == 1 + 1 + 1 + 1 + 1 + 2, "making it, and each measure; quantiles take two"


def tripled(rows, _, __):
    assert rows.ndim == 3, "rows, as the method itself is given them"
    return rows[0] * 3


@pytest.fixture
def rowwise():
    """A method that sees rows and measures."""

    @method(paper="https://example.org", locality="row")
    def rowwise(
        weights: Weights,
        *,
        total: Annotated[Array, summed(tripled, squared=True, scoped=True)],
        scope: Scope = "tensor",
    ) -> Array:
        """Divide by the norm."""
        del scope
        assert total.shape == (1, 1, 1)
        return weights[0] / total[0]

    return rowwise


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_rows_that_are_no_multiple_of_a_block(scope, rowwise, models, recipe, tmp_path, small):
    models()
    text = f"models: [{{model: a}}]\nmerge_method: rowwise\nparameters: {{scope: {scope}}}\n"
    plait.merge(recipe(text), tmp_path / "out", threads=3)
    a = contents(tmp_path / "a")
    assert same(contents(tmp_path / "out"), plait.merge_tensors([a], "rowwise", scope=scope))
    name = "model.layers.0.mlp.down_proj.weight"
    parts = a if scope == "model" else [name]
    norm = math.fsum(float(((3 * a[part]).astype(float) ** 2).sum()) for part in parts)
    np.testing.assert_allclose(contents(tmp_path / "out")[name], a[name] / norm, rtol=1e-6)


class HaltError(Exception):
    pass


@pytest.mark.parametrize("text", [MANIFOLD.format(scope="model"), BY_SIZE.format(scope="model", scale=1.0)])
def test_what_was_interrupted_goes_on_with_the_same_bytes(text, models, recipe, merged, tmp_path, small):
    models()
    path = recipe(text, post=["rescale_norm", {"lines": {"alpha": 0.5}}])
    expected = merged(path)

    def halt(event) -> None:
        if event.bytes_written > 200_000:
            raise HaltError

    with pytest.raises(HaltError):
        plait.merge(path, tmp_path / "out", threads=1, on_event=halt)
    told = []
    plait.merge(path, tmp_path / "out", threads=3, on_event=lambda event: told.append(event.kind))
    assert "resume" in told
    assert merged_files(tmp_path / "out") == expected


def merged_files(folder) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_other_models_are_another_group(models, recipe, tmp_path):
    models(shapes={f"model.layers.{i}.w": (30, 40) for i in range(2)})
    text = """
    slices:
      - sources: [{model: base, layer_range: [0, 1]}, {model: a, layer_range: [0, 1]}]
      - sources: [{model: base, layer_range: [1, 2]}, {model: b, layer_range: [1, 2]}]
    merge_method: by_size
    base_model: base
    parameters: {scope: model}
    """
    plait.merge(recipe(text), tmp_path / "out", threads=1, verify=False)
    base, a, b = (contents(tmp_path / name) for name in ("base", "a", "b"))
    for gram, model, name in zip(seen["gram"], (a, b), base, strict=True):
        np.testing.assert_allclose(gram, [[((model[name] - base[name]).astype(float) ** 2).sum()]], rtol=1e-12)
