"""Adapters by hub name, merged into an adapter: nothing of their base is asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save

import plait as api

NAME = "base_model.model.model.layers.0.mlp.up_proj"


@pytest.fixture
def adapters(hub, tmp_path):
    """Put two adapters on the hub, and a recipe of their sum beside; returns their changes."""
    rng = np.random.default_rng(1)
    changes = []
    for index in range(2):
        down, up = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 8), (12, 2)))
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "org/base"}
        weights = save({f"{NAME}.lora_A.weight": down, f"{NAME}.lora_B.weight": up})
        files = {"adapter_model.safetensors": weights, "adapter_config.json": json.dumps(config).encode()}
        hub.add(f"org/adapter{index}", files | {"tokenizer.json": b"{}"})
        changes.append(2 * up @ down)
    (tmp_path / "recipe.yml").write_text(
        "models: [{model: org/adapter0}, {model: org/adapter1@main}]\nmerge_method: task_arithmetic\n"
        "parameters: {weight: 0.5}\nadapter: {exact: true}\n"
    )
    return changes


def test_they_are_planned_by_headers_and_fetched_to_be_merged(hub, adapters, tmp_path):
    made = api.plan(tmp_path / "recipe.yml")
    assert not list((tmp_path / "hf").rglob("*.safetensors"))
    out = api.merge(tmp_path / "recipe.yml", tmp_path / "out", planned=made).path
    found = load_file(out / "adapter_model.safetensors")
    change = found[f"{NAME}.lora_B.weight"] @ found[f"{NAME}.lora_A.weight"]
    np.testing.assert_allclose(change, (adapters[0] + adapters[1]) / 2, rtol=1e-5, atol=1e-6)
    commits = json.loads((out / "plait.lock").read_text())["commits"]
    assert commits["org/adapter1@main"] == hub.repositories["org/adapter1"].refs["main"]
    assert (out / "tokenizer.json").read_bytes() == b"{}"
    assert "base_model: org/base" in (out / "README.md").read_text()
    assert not [line for line in hub.requests if "org/base" in line]


@pytest.mark.usefixtures("adapters")
def test_the_lock_holds_their_commits(hub, tmp_path):
    out = api.merge(tmp_path / "recipe.yml", tmp_path / "out").path
    tensors = {
        f"{NAME}.lora_A.weight": np.ones((2, 8), np.float32),
        f"{NAME}.lora_B.weight": np.ones((12, 2), np.float32),
    }
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "org/base"}
    later = {"adapter_model.safetensors": save(tensors), "adapter_config.json": json.dumps(config).encode()}
    hub.add("org/adapter0", later)
    again = api.merge(out / "plait.lock", tmp_path / "again").path
    other = api.merge(tmp_path / "recipe.yml", tmp_path / "other").path
    first, same, changed = ((folder / "adapter_model.safetensors").read_bytes() for folder in (out, again, other))
    assert first == same != changed
