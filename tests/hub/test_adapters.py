"""Adapters by hub name: on a base that is named, and on the one that their config names."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save

import plait as api
from plait.errors import CheckpointError

MODULE = "model.layers.0.mlp.up_proj"


@pytest.fixture
def adapter(hub, write_llama, tmp_path):
    """Put a base and an adapter on the hub; returns the base's weight, and the weight with the adapter on it."""
    base = write_llama("base", 0, folder=tmp_path / "local")
    hub.add("org/base", base)
    rng = np.random.default_rng(1)
    down, up = rng.standard_normal((2, 8)).astype(np.float32), rng.standard_normal((12, 2)).astype(np.float32)
    name = f"base_model.model.{MODULE}"
    weights = save({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "org/base"}
    hub.add("org/adapter", {
        "adapter_model.safetensors": weights, "adapter_config.json": json.dumps(config).encode(), "optimizer.pt": b"x" * 9999,
    })  # fmt: skip
    before = load_file(base / "model.safetensors")[f"{MODULE}.weight"]
    return before, before + 2 * up @ down


@pytest.mark.parametrize("reference", ["org/base+org/adapter", "org/base@main+org/adapter@main", "org/adapter"])
def test_an_adapter_is_merged(hub, adapter, reference, tmp_path):
    (tmp_path / "recipe.yml").write_text(f"models: [{{model: {reference}}}]\nmerge_method: passthrough\n")
    made = api.plan(tmp_path / "recipe.yml")
    assert not list((tmp_path / "hf").rglob("*.safetensors"))
    out = api.merge(tmp_path / "recipe.yml", tmp_path / "out", planned=made, verify=False).path
    np.testing.assert_allclose(load_file(out / "model.safetensors")[f"{MODULE}.weight"], adapter[1], rtol=1e-5)
    commits = json.loads((out / "plait.lock").read_text())["commits"]
    assert {name.partition("@")[0]: commit for name, commit in commits.items()} == {
        "org/base": hub.repositories["org/base"].refs["main"], "org/adapter": hub.repositories["org/adapter"].refs["main"],
    }  # fmt: skip
    assert not [line for line in hub.requests if "optimizer" in line]


def test_the_lock_holds_the_base_that_only_the_adapter_names(hub, adapter, write_llama, tmp_path):
    (tmp_path / "recipe.yml").write_text("models: [{model: org/adapter}]\nmerge_method: passthrough\n")
    out = api.merge(tmp_path / "recipe.yml", tmp_path / "out", verify=False).path
    hub.add("org/base", write_llama("other", 5, folder=tmp_path / "local"))
    again = api.merge(out / "plait.lock", tmp_path / "again", verify=False).path
    assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_a_base_that_is_not_on_the_hub_is_told_with_the_way_out(hub, adapter):
    del hub.repositories["org/base"]
    with pytest.raises(CheckpointError) as caught:
        api.inspect("org/adapter")
    assert "an adapter, whose base 'org/base'" in str(caught.value)
    assert "Name it behind its base: <its base>+org/adapter." in str(caught.value)


def test_weights_of_torch_are_read_by_ranges_too(hub, tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({f"layers.{i}.weight": torch.full((50_000,), float(i)) for i in range(20)}, tmp_path / "w.bin")
    data = (tmp_path / "w.bin").read_bytes()  # 4 MB
    hub.add("org/old", {"pytorch_model.bin": data, "config.json": b'{"model_type": "bert"}'})
    assert len(api.inspect("org/old").tensors) == 20
    assert hub.served < 500_000
    assert api.load("org/old")["layers.7.weight"][0] == 7


def test_what_a_quantised_checkpoint_says_of_itself_is_read_by_ranges(hub, tmp_path):
    rng = np.random.default_rng(0)
    config = {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {
        "group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "strategy": "channel", "symmetric": True}}
    }}, "model_type": "llama"}  # fmt: skip
    tensors = {}
    for i in range(3):
        stem = f"model.layers.{i}.mlp.up_proj"
        tensors[f"{stem}.weight_packed"] = rng.integers(0, 2**31, (1024, 64), dtype=np.int32)
        tensors[f"{stem}.weight_scale"] = np.ones((1024, 1), np.float32)
        tensors[f"{stem}.weight_shape"] = np.array([1024, 512], np.int64)
    hub.add("org/packed", {"model.safetensors": save(tensors), "config.json": json.dumps(config).encode()})
    (tmp_path / "recipe.yml").write_text("models: [{model: org/packed}]\nmerge_method: passthrough\n")
    made = api.plan(tmp_path / "recipe.yml")
    assert {step.shape for step in made.steps} == {(1024, 512)}
    assert hub.served < 400_000
    out = api.merge(tmp_path / "recipe.yml", tmp_path / "out", planned=made, verify=False).path
    assert (out / "model.safetensors").stat().st_size > 3 * 1024 * 512 * 2
