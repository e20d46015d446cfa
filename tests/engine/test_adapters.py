"""Adapters merged by the engine: the numbers of peft's merge_and_unload, and the same bytes however it is cut."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

import plait
from plait.errors import MergeError, RecipeError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

LLAMA = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 101,
    "attention_bias": True,
}
BAKED = "models: [{{model: {model}}}]\nmerge_method: passthrough\n"


def llama(**more):
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**LLAMA, "tie_word_embeddings": False, **more}))


def gpt2():
    config = transformers.GPT2Config(n_embd=48, n_layer=2, n_head=4, vocab_size=101, n_positions=64)
    return transformers.GPT2LMHeadModel(config)


def bert():
    config = transformers.BertConfig(
        hidden_size=48, num_hidden_layers=1, num_attention_heads=4, intermediate_size=80, vocab_size=101
    )
    return transformers.BertForSequenceClassification(config)


CASES = {
    "plain": (llama, {"target_modules": ["q_proj", "v_proj", "down_proj"], "lora_alpha": 16}),
    "all linear, rslora": (llama, {"target_modules": "all-linear", "use_rslora": True, "lora_alpha": 7}),
    "patterns": (
        llama,
        {
            "target_modules": ["q_proj", "up_proj", "down_proj"],
            "rank_pattern": {"layers.0.self_attn.q_proj": 3, "up_proj": 5},
            "alpha_pattern": {r"layers\.1\..*down_proj": 9, "q_proj": 2.5},
        },
    ),
    "dora": (llama, {"target_modules": ["q_proj", "down_proj"], "use_dora": True, "lora_alpha": 16}),
    "dora of embeddings": (llama, {"target_modules": ["embed_tokens", "k_proj"], "use_dora": True}),
    "lora bias": (llama, {"target_modules": ["q_proj", "v_proj"], "lora_bias": True}),
    "biases trained": (llama, {"target_modules": ["q_proj"], "bias": "all"}),
    "embeddings and head": (llama, {"target_modules": ["embed_tokens", "lm_head"], "lora_alpha": 24}),
    "modules to save": (llama, {"target_modules": ["o_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}),
    "fan in fan out": (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "fan in fan out, dora": (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "use_dora": True}),
    "embeddings of a tied model": (gpt2, {"target_modules": ["wte"], "fan_in_fan_out": True}),
    "a task head": (bert, {"target_modules": ["query", "dense"], "task_type": "SEQ_CLS"}),
}


def make(folder: Path, build, settings, *, seed=0, base=None) -> dict[str, np.ndarray]:
    """Write base/ and adapter/ in `folder`, all factors and magnitudes drawn at random; returns peft's merge."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build()
        where = folder / (base or "base")
        if base is None:
            model.save_pretrained(where)
        else:
            model = type(model).from_pretrained(where)
        adapted = peft.get_peft_model(model, peft.LoraConfig(**{"r": 4, "init_lora_weights": False, **settings}))
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if parameter.requires_grad and "lora_magnitude" in name:
                    parameter.mul_(torch.rand_like(parameter) + 0.5)
                elif parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        adapted.peft_config["default"].base_model_name_or_path = "../base"
        adapted.save_pretrained(folder / (f"adapter{seed}" if seed else "adapter"))
        merged = adapted.merge_and_unload()
        return {name: value.detach().float().numpy().copy() for name, value in merged.state_dict().items()}


def close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> int:
    """Hold every tensor against peft's, to 1e-5 of the largest entry; returns how many there are."""
    for name, array in found.items():
        array = np.asarray(array, np.float32)
        assert array.shape == expected[name].shape, name
        worst = np.abs(array - expected[name]).max() / max(np.abs(expected[name]).max(), 1e-30)
        assert worst <= 1e-5, f"{name}: {worst}"
    return len(found)


@pytest.mark.parametrize("case", CASES)
def test_baking_an_adapter_in_is_what_peft_makes(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = make(tmp_path, *CASES[case])
    Path("recipe.yml").write_text(BAKED.format(model="base+adapter"))
    result = plait.merge("recipe.yml", "out")
    made, base = plait.load("out"), plait.load("base")
    assert close(made, expected) == len(base)
    assert any(not np.array_equal(made[name], base[name]) for name in base)
    Path("alone.yml").write_text(BAKED.format(model="adapter"))
    plait.merge("alone.yml", "alone")
    assert close(plait.load("alone"), made) == len(base)
    assert result.path == Path("out").resolve() or result.path == Path("out")
