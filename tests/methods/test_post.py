"""Post-steps give what was worked out by hand, on any tiles and devices, and see what the method and earlier steps made."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

import plait
from plait.engine.prepare import needs_preparing
from plait.methods import Array, Deltas, MethodError, Random, post_step
from plait.methods.measures import extremes, summed
from plait.methods.method import _POST_STEPS, method, method_names
from plait.methods.vocabulary import LayerPosition, Parameter, Scope, Stack
from plait.ops import BLOCK
from plait.planning.totals import passes

CONFIG = {"architectures": ["TinyForCausalLM"], "model_type": "tiny"}
SUM: dict[str, Any] = {"merge_method": "task_arithmetic", "parameters": {"weight": 1.0}}
"""merged = δ₁ + δ₂."""


@pytest.fixture
def merged(tmp_path):
    """Merge the given deltas, each `{tensor: entries}`, on a base of zeros, and return what comes out."""

    def run(deltas: list[Mapping[str, Any]], recipe: dict[str, Any], post: list[Any], **options: Any) -> dict:
        zeros = {name: np.zeros_like(np.float32(values)) for name, values in deltas[0].items()}
        for number, model in enumerate([zeros, *deltas]):
            folder = tmp_path / f"m{number}"
            folder.mkdir(exist_ok=True)
            save_file({k: np.array(v, np.float32) for k, v in model.items()}, folder / "model.safetensors")
            depth = 1 + max((int(name.split(".")[1]) for name in zeros if name.startswith("layers.")), default=0)
            (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": depth}))
        listed = [{"model": f"./m{number}"} for number in range(1, len(deltas) + 1)]
        inputs = {} if "slices" in recipe else {"models": listed}
        document = {**inputs, "base_model": "./m0", **recipe, "post": post}
        path = tmp_path / "recipe.yml"
        path.write_text(yaml.safe_dump(document))
        plait.merge(path, tmp_path / "out", overwrite=True, verify=False, **options)
        return plait.load(tmp_path / "out")

    return run


TWO = [{"w": [3.0, 0.0, 4.0, 0.0]}, {"w": [0.0, 6.0, 0.0, -8.0]}]  # norms 5 and 10; the sum's is √125
SIGNS = [
    {"w": [3.0, -1.0, 1.0, 2.0, 0.0, 1.0]},
    {"w": [-1.0, -2.0, -4.0, -2.0, 0.0, 1.0]},
    {"w": [-1.0, 1.0, 1.0, 0.0, 0.0, 1.0]},
]
# Totals 1, -2, -2, 0, 0, 3; more are -, -, +, (one each), (none), +.
FLIPPED = {"merge_method": "task_arithmetic", "parameters": {"weight": -1.0}}  # merged: -1, 2, 2, 0, 0, -3
LARGEST = {"merge_method": "magmax", "parameters": {"scale": 1.0}}  # merged: 3, -2, -4, 2, 0, 1
ROOT = math.sqrt(125)
GOLDEN = {
    "scale": [(TWO, SUM, [{"scale": 0.5}], [1.5, 3, 2, -4]), (TWO, SUM, [{"scale": -1}], [-3, -6, -4, 8])],
    "clamp": [(TWO, SUM, [{"clamp": 3.5}], [3, 3.5, 3.5, -3.5]), (TWO, SUM, [{"clamp": 0}], [0, 0, 0, 0])],
    "rescale_norm": [
        (TWO, SUM, ["rescale_norm"], np.array([3, 6, 4, -8]) * 7.5 / ROOT),
        (TWO, SUM, [{"rescale_norm": {"to": "mean"}}], np.array([3, 6, 4, -8]) * 7.5 / ROOT),
        (TWO, SUM, [{"rescale_norm": {"to": "max"}}], np.array([3, 6, 4, -8]) * 10 / ROOT),
        (TWO, SUM, [{"rescale_norm": {"to": "sum"}}], np.array([3, 6, 4, -8]) * 15 / ROOT),
        # What comes before it is seen: (3, 3.5, 3.5, -3.5) has the norm √45.75; what comes after it is not undone.
        (TWO, SUM, [{"clamp": 3.5}, "rescale_norm"], np.array([3, 3.5, 3.5, -3.5]) * 7.5 / math.sqrt(45.75)),
        (TWO, SUM, ["rescale_norm", {"scale": 2}], np.array([3, 6, 4, -8]) * 15 / ROOT),
        # Deltas that cancel leave nothing to be scaled; so does a merge that keeps nothing.
        ([{"w": [1.0, 2.0]}, {"w": [-1.0, -2.0]}], SUM, ["rescale_norm"], [0, 0]),
        ([{"w": [1.0, 2.0]}, {"w": [-1.0, -2.0 - 2e-7]}], SUM, ["rescale_norm"], [0, -(2**-22)]),
        ([{"w": [0.0, 0.0]}], SUM, ["rescale_norm"], [0, 0]),
        # Small or large, it is the same.
        ([{"w": [3e-25, 0.0]}, {"w": [0.0, 4e-25]}], SUM, ["rescale_norm"], [2.1e-25, 2.8e-25]),
        ([{"w": [3e25, 0.0]}, {"w": [0.0, 4e25]}], SUM, [{"rescale_norm": {"to": "max"}}], [2.4e25, 3.2e25]),
        # A 0-dimensional tensor is one entry.
        ([{"w": 3.0}, {"w": -1.0}], SUM, ["rescale_norm"], 2.0),
    ],
    "sign_mask": [
        (SIGNS, LARGEST, ["sign_mask"], [3, -2, -4, 2, 0, 1]),  # the fourth vote is a tie: it stays
        (SIGNS, LARGEST, [{"sign_mask": {"vote": "total"}}], [3, -2, -4, 2, 0, 1]),
        (SIGNS, LARGEST, [{"sign_mask": {"vote": "frequency"}}], [0, -2, 0, 2, 0, 1]),
        (SIGNS, FLIPPED, ["sign_mask"], [0, 0, 0, 0, 0, 0]),
        (SIGNS, FLIPPED, [{"sign_mask": {"vote": "frequency"}}], [-1, 0, 2, 0, 0, 0]),
        # Products of these would vanish.
        ([{"w": [1e-30, -1e-30]}], FLIPPED, ["sign_mask"], [0, 0]),
    ],
}


@pytest.mark.parametrize("device", ["cpu", "torch:cpu"])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, device, merged):
    if device != "cpu":
        pytest.importorskip("torch")
    for deltas, recipe, post, expected in GOLDEN[name]:
        found = merged(deltas, recipe, post, device=device)["w"]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, np.float32(expected), rtol=3e-7, atol=0, err_msg=f"{name}: {post}")


LAYERS = {
    name: [8.0, -4.0] for name in ("embed_tokens.w", "layers.0.w", "layers.1.w", "layers.2.w", "norm.w", "lm_head.w")
}


@pytest.mark.parametrize(
    ("settings", "outside", "layers"),
    [
        ({"alpha": 0.25}, 0.25, (0.25, 0.625, 1.0)),  # β = 1 − α
        ({"alpha": 0.25, "beta": 0.5}, 0.25, (0.25, 0.5, 0.75)),
        ({"alpha": 0.5, "beta": 0}, 0.5, (0.5, 0.5, 0.5)),
        ({"alpha": 1}, 1, (1, 1, 1)),
        ({"alpha": 1, "beta": -1}, 1, (1, 0.5, 0)),
    ],
)
def test_lines(settings, outside, layers, merged):
    found = merged([LAYERS], SUM, [{"lines": settings}])
    wanted = dict(zip(LAYERS, (outside, *layers, outside, outside), strict=True))
    assert {name: values.tolist() for name, values in found.items()} == {
        name: [8 * factor, -4 * factor] for name, factor in wanted.items()
    }


def test_lines_over_one_layer_and_over_slices(merged):
    found = merged([{"layers.0.w": [8.0], "norm.w": [8.0]}], SUM, [{"lines": {"alpha": 0.25}}])
    assert [found["layers.0.w"].tolist(), found["norm.w"].tolist()] == [[8], [2]], "an only layer is the last"
    ranges = [{"sources": [{"model": f"./m{n}", "layer_range": span} for n in (0, 1)]} for span in ([0, 2], [0, 3])]
    found = merged([LAYERS], SUM | {"slices": ranges}, [{"lines": {"alpha": 0}}])
    factors = [float(found[f"layers.{number}.w"][0]) / 8 for number in range(5)]
    assert factors == [0, 0.25, 0.5, 0.75, 1], "the l-th of the output's layers, not of the slice's"


def test_every_post_step_is_here_and_says_what_it_does():
    assert GOLDEN.keys() | {"lines"} == set(method_names(post=True))


def large(seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    shapes = {"layers.0.w": (3 * BLOCK + 5,), "layers.1.w": (70, 130), "layers.1.b": (130,)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ties", {"weight": 1, "density": 0.4}),
        ("ties", {"weight": 1, "density": 0.4, "scope": "model"}),
        ("dare_linear", {"weight": 1, "density": 0.4}),
        ("model_stock", {}),
        ("model_stock", {"filter_wise": True}),
    ],
)
def test_the_same_bytes_however_it_is_cut(name, parameters, merged, monkeypatch):
    recipe = {"merge_method": name, "parameters": parameters}
    post = ["sign_mask", {"rescale_norm": {"to": "sum"}}, {"lines": {"alpha": 0.5}}]
    first = merged([large(1), large(2)], recipe, post, threads=1)
    for part in ("hashes", "work", "fingerprint"):
        monkeypatch.setattr(f"plait.engine.{part}.CHUNK", 8192)
    monkeypatch.setattr("plait.engine.device.Cpu.batch", BLOCK)
    monkeypatch.setattr("plait.engine.device.Cpu.tile", BLOCK)
    second = merged([large(1), large(2)], recipe, post, threads=3)
    assert {name: values.tobytes() for name, values in first.items()} == {
        name: values.tobytes() for name, values in second.items()
    }
    norms = [math.sqrt((large(seed)["layers.1.w"].astype(float) ** 2).sum()) for seed in (1, 2)]
    assert math.sqrt((first["layers.1.w"].astype(float) ** 2).sum()) == pytest.approx(sum(norms), rel=1e-6)


def test_a_plan_counts_the_measuring(merged, tmp_path):
    merged(TWO, SUM, ["rescale_norm"])
    (step,) = plait.plan(tmp_path / "recipe.yml").steps
    assert passes(step) == 2
    assert needs_preparing(step), "so that one thread measures and makes all units of a tensor"
    (tmp_path / "recipe.yml").write_text((tmp_path / "recipe.yml").read_text().replace("rescale_norm", "sign_mask"))
    (step,) = plait.plan(tmp_path / "recipe.yml").steps
    assert passes(step) == 1
    assert not needs_preparing(step)


Gain = Annotated[float, Parameter(float, "A factor.")]
Total = Annotated[Array, summed(lambda both, p, _: abs(both) * p["gain"])]
Edges = Annotated[Array, extremes(lambda both, p, _: both / p["total"])]


@pytest.fixture(autouse=True)
def own_steps():
    """Forget the post-steps that a test enters."""
    before = dict(_POST_STEPS)
    yield
    _POST_STEPS.clear()
    _POST_STEPS.update(before)


def test_a_user_s_own_sees_stack_layer_and_measures_of_both(merged):
    seen: dict[str, Any] = {}

    @post_step
    def looking(merged: Deltas, *, stack: Stack, total: Total, edges: Edges, at: LayerPosition, gain: Gain) -> Array:
        """Look."""
        seen.update(total=total.reshape(-1).tolist(), edges=edges.reshape(2, -1).tolist(), at=at, gain=gain)
        seen["stack"] = np.array(stack)
        return merged * 1.0

    merged([{"layers.0.w": [3.0, -1.0]}, {"layers.0.w": [1.0, 1.0]}], SUM, [{"looking": {"gain": 2}}])
    assert seen["stack"].tolist() == [[3, -1], [1, 1]]
    assert seen["total"] == [8, 4, 8]
    assert seen["edges"] == [[-0.125, 0.25, 0], [0.375, 0.25, 0.5]]
    assert (seen["at"], seen["gain"]) == (1.0, 2.0)


def test_what_post_steps_and_methods_may_declare():
    def random(merged: Deltas, *, rng: Random) -> Array:
        """Roll."""

    def scoped(merged: Deltas, *, scope: Scope = "tensor") -> Array:
        """Rank."""

    for wrong in (random, scoped):
        with pytest.raises(MethodError, match=f"{wrong.__name__}: a post-step has nothing random, and measures"):
            post_step(wrong)

    def placed(deltas: Deltas, *, at: LayerPosition) -> Array:
        """Place."""

    with pytest.raises(MethodError, match="placed: Stack and LayerPosition are for post-steps"):
        method(paper="https://example.org", locality="element")(placed)
