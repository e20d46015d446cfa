"""Every family, as transformers builds and runs it: written as GGUF, read back, and the same model still."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import plait

SIZES = {
    "vocab_size": 48, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16}
LONG = {"type": "longrope", "short_factor": [1.0, 1.5, 2.0, 2.5], "long_factor": [1.0, 2.0, 3.5, 5.0]}
FAMILIES = {
    "Llama": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "Mistral": {"head_dim": 16, "sliding_window": None},
    "Mixtral": {"num_local_experts": 4},
    "Qwen2": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "Qwen2Moe": {**EXPERTS, "shared_expert_intermediate_size": 24},
    "Qwen3": {"head_dim": 16, "rope_theta": 1e6},
    "Qwen3Moe": {**EXPERTS, "head_dim": 16, "norm_topk_prob": True},
    "Gemma": {"head_dim": 16},
    "Gemma2": GEMMA,
    "Gemma3Text": {**GEMMA, "num_hidden_layers": 7, "rope_local_base_freq": 5e3, "rope_theta": 2e4},
    "Phi3": {"rope_scaling": LONG, "original_max_position_embeddings": 32},
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    transformers.utils.logging.disable_progress_bar()


def build(name):
    """Save a tiny model with weights that tell rows, heads and norms apart, and a tokenizer of single letters."""
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **FAMILIES[name]})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    for key, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.2, mean=1.0 if "norm" in key and "Gemma" not in name else 0.0)
    model.save_pretrained("own")
    vocabulary = {token: number for number, token in enumerate("abcdefghijklmnopqrstuvwxyz ")}
    tokenizer = {
        "added_tokens": [], "normalizer": None, "post_processor": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}, "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }  # fmt: skip
    Path("own/tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_goes_there_and_back(name):
    build(name)
    plait.export_gguf("own", "m.gguf")
    own, read = plait.load("own"), plait.load("m.gguf")
    assert read.keys() == own.keys()
    for key, array in own.items():
        np.testing.assert_array_equal(read[key].astype(np.float32), array.astype(np.float32), key)
    Path("r.yml").write_text("models: [{model: m.gguf}]\nmerge_method: passthrough\n")
    plait.merge("r.yml", "back")
    load = transformers.AutoModelForCausalLM.from_pretrained
    back, told = load("back", dtype=torch.float32, output_loading_info=True)
    assert not any(told.values())
    ids = torch.arange(3, 43)[None]
    with torch.no_grad():
        one, other = load("own", dtype=torch.float32)(ids).logits, back(ids).logits
    torch.testing.assert_close(other, one, rtol=0, atol=0)
    assert all(own[key].tobytes() == array.tobytes() for key, array in plait.load("back").items())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Gemma2", {"layer_types": ["full_attention", "sliding_attention"]}, "no place for layer_types"),
        ("Gemma2", {"query_pre_attn_scalar": 8}, "query_pre_attn_scalar 8 (it would be 16)"),
        ("Qwen3Moe", {"decoder_sparse_step": 2}, "decoder_sparse_step 2"),
        ("Qwen3Moe", {"norm_topk_prob": False}, "norm_topk_prob False (it would be True)"),
        (
            "Gemma3Text",
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
            "rope_local_scaling",
        ),
    ],
)
def test_what_the_architecture_cannot_be_is_refused(name, settings, message):
    build(name)
    config = json.loads(Path("own/config.json").read_text())
    Path("own/config.json").write_text(json.dumps(config | settings))
    with pytest.raises(plait.CheckpointError) as caught:
        plait.export_gguf("own", "m.gguf")
    assert message in str(caught.value)
