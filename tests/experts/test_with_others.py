"""Layouts of experts together with adapters and quantised weights, whose tensors are made as they are read, too."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import plait

FP8 = np.dtype(ml_dtypes.float8_e4m3fn)


def test_adapters_and_layouts_together(made, recipe, tmp_path):
    """An adapter on some experts of a model in the other layout: float32 where it changes something, then rounded."""
    family = made("mixtral", "bfloat16")
    a, b = family.folders["a", "stacked"], family.folders["b", "each"]
    (tmp_path / "lora").mkdir()
    settings = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 2,
        "target_modules": ["w1"],
        "base_model_name_or_path": str(b),
    }
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(settings))
    rng, stem = np.random.default_rng(0), "base_model.model.model.layers.0.block_sparse_moe.experts.2.w1"
    factors = {"A": rng.standard_normal((2, 16)), "B": rng.standard_normal((24, 2))}
    factors = {key: value.astype(np.float32) for key, value in factors.items()}
    save_file(
        {f"{stem}.lora_{key}.weight": value for key, value in factors.items()},
        tmp_path / "lora" / "adapter_model.safetensors",
    )
    models = f"models: [{{model: {b}+{tmp_path / 'lora'}, parameters: {{weight: 1}}}}]"
    plait.merge(recipe(f"{{merge_method: linear, base_model: {a}, {models}}}"), tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")["model.layers.0.mlp.experts.gate_up_proj"]
    plain = load_file(family.folders["b", "stacked"] / "model.safetensors")["model.layers.0.mlp.experts.gate_up_proj"]
    wanted = plain.astype(np.float32)
    wanted[2, :24] += factors["B"] @ factors["A"]
    np.testing.assert_array_equal(found[[0, 1, 3]], plain[[0, 1, 3]])
    np.testing.assert_allclose(found.astype(np.float32), wanted, rtol=2**-8)


def quantised(folder, out):
    """Write every expert's weights as FP8 with one scale a tensor's block, and what that means beside it."""
    arrays = load_file(folder / "model.safetensors")
    packed, plain = {}, {}
    for name, array in arrays.items():
        if ".experts." not in name:
            packed[name] = plain[name] = array
            continue
        scale = np.float32(np.abs(array.astype(np.float32)).max() / 256)
        packed[name] = (array.astype(np.float32) / scale).astype(FP8)
        packed[name.replace(".weight", ".weight_scale_inv")] = np.full((1, 1), scale)
        plain[name] = (packed[name].astype(np.float32) * scale).astype(array.dtype)
    config = json.loads((folder / "config.json").read_text())
    settings = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    for place, found, more in ((out / "fp8", packed, settings), (out / "plain", plain, {})):
        place.mkdir()
        save_file(found, place / "model.safetensors", metadata={"format": "pt"})
        (place / "config.json").write_text(json.dumps(config | more))
    return out / "fp8", out / "plain"


@pytest.mark.parametrize("match", ["", ", experts: {match: weights}"])
def test_fp8_by_expert_on_a_stacked_base(made, recipe, tmp_path, match):
    family = made("deepseek_v3", "bfloat16")
    a = family.folders["a", "stacked"]
    for name, b in zip(("one", "two"), quantised(family.folders["b", "each"], tmp_path), strict=True):
        models = f"models: [{{model: {a}}}, {{model: {b}}}]"
        text = f"{{merge_method: linear, base_model: {a}, {models}, parameters: {{weight: 0.5}}{match}}}"
        plait.merge(recipe(text), tmp_path / name)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_mxfp4_on_a_base_by_expert(recipe, tmp_path, write_model):
    """GPT-OSS as published (quantised, stacked, transposed, gate and up in turns), read as one linear layer each."""
    rng, count, size, stem = np.random.default_rng(0), 2, 32, "model.layers.0.mlp"
    packed, each = {}, {}
    for name, rows in (("gate_up_proj", 2 * size), ("down_proj", size)):
        packed[f"{stem}.experts.{name}_blocks"] = rng.integers(0, 256, (count, rows, size // 32, 16), np.uint8)
        packed[f"{stem}.experts.{name}_scales"] = rng.integers(120, 130, (count, rows, size // 32), np.uint8)
        packed[f"{stem}.experts.{name}_bias"] = rng.standard_normal((count, rows)).astype(ml_dtypes.bfloat16)
    config = {"model_type": "gpt_oss", "num_hidden_layers": 1, "hidden_size": size}
    other = write_model("packed", packed, **config, quantization_config={"quant_method": "mxfp4"})
    plain = plait.load(recipe_of(recipe, other, other, tmp_path / "plain"))
    for e in range(count):
        for kind, turn in (("weight", np.transpose), ("bias", np.asarray)):
            tail = "_bias" if kind == "bias" else ""
            both = turn(plain[f"{stem}.experts.gate_up_proj{tail}"][e])
            each[f"{stem}.experts.{e}.gate_proj.{kind}"] = both[0::2].copy()
            each[f"{stem}.experts.{e}.up_proj.{kind}"] = both[1::2].copy()
            each[f"{stem}.experts.{e}.down_proj.{kind}"] = turn(plain[f"{stem}.experts.down_proj{tail}"][e]).copy()
    base = write_model("each", {name: np.zeros_like(array) for name, array in each.items()}, **config)
    found = load_file(recipe_of(recipe, base, other, tmp_path / "out") / "model.safetensors")
    assert found.keys() == each.keys()
    for name, array in each.items():  # as numbers, for a difference knows no negative zero
        np.testing.assert_array_equal(found[name], array)


def recipe_of(recipe, base, model, out):
    """Write `model` in the layout of `base`: a task vector from zeros, or a copy of itself."""
    if base == model:
        text = f"{{merge_method: passthrough, models: [{{model: {model}}}]}}"
    else:
        models = f"models: [{{model: {model}, parameters: {{weight: 1}}}}]"
        text = f"{{merge_method: task_arithmetic, base_model: {base}, {models}}}"
    plait.merge(recipe(text), out)
    return out
