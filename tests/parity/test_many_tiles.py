"""Tensors far larger than a tile, against the float64 references: what is measured must see all of them."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

import plait

SHAPES = {"model.layers.0.mlp.up_proj.weight": (1201, 703), "model.layers.1.mlp.up_proj.bias": (300_007,)}
WEIGHTS = (0.437, 0.331, 0.284)
CASES = {
    "linear": ({}, lambda r, _, x: r.linear(x, WEIGHTS)),
    "task_arithmetic": ({"lambda": 0.8}, lambda r, b, x: r.task_arithmetic(b, x, WEIGHTS, 0.8)),
    "slerp": ({"t": 0.41}, lambda r, _, x: r.slerp(x[0], x[1], 0.41)),
    "ties": ({"density": 0.3}, lambda r, b, x: r.ties(b, trimmed(r, b, x, 0.3), WEIGHTS)),
    "model_stock": ({}, lambda r, b, x: r.model_stock(b, x)),
    "karcher": ({"max_iter": 100, "tol": 1e-9}, lambda r, _, x: r.karcher(x)),
}


def trimmed(references, base, experts, density):
    deltas = [x - base for x in experts]
    return [np.where(np.abs(d) >= references.threshold(d, density), d, 0) for d in deltas]


@pytest.fixture(scope="module")
def large(tmp_path_factory, inputs):
    """Folders of four checkpoints of two tensors whose far ends differ: each row is scaled by its place."""
    folder = tmp_path_factory.mktemp("large")
    for model in inputs.MODELS:
        (folder / model).mkdir()
        weights = {}
        for name, shape in SHAPES.items():
            ramp = np.linspace(0.2, 3, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
            value = 0.02 * inputs.noise(f"large/base/{name}", shape)
            if model != "base":
                value = value + 0.006 * ramp * inputs.noise(f"large/{model}/{name}", shape)
            weights[name] = value.astype(np.float32)
        save_file(weights, folder / model / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("method", CASES)
def test_large_tensors_are_right_to_the_last_tile(method, large, references, inputs, tmp_path) -> None:
    settings, compute = CASES[method]
    experts = [str(large / model) for model in inputs.MODELS[1:]][: 2 if method == "slerp" else 3]
    weighted = method in {"linear", "task_arithmetic", "ties"}
    recipe = {
        "merge_method": method,
        "models": [
            {"model": path, **({"parameters": {"weight": weight}} if weighted else {})}
            for path, weight in zip(experts, WEIGHTS, strict=False)
        ],
        "parameters": settings,
        "dtype": "float32",
    }
    if method not in {"linear", "karcher"}:
        recipe["base_model"] = experts[0] if method == "slerp" else str(large / "base")
    (tmp_path / "recipe.yml").write_text(yaml.safe_dump(recipe))
    plait.merge(tmp_path / "recipe.yml", tmp_path / "out")

    merged = load_file(tmp_path / "out" / "model.safetensors")
    for name in SHAPES:
        base, *models = (
            load_file(large / model / "model.safetensors")[name].astype(np.float64) for model in inputs.MODELS
        )
        exact = compute(references, base, models)
        np.testing.assert_allclose(merged[name], exact, rtol=0, atol=5e-7 * np.abs(exact).max(), err_msg=name)
