"""Tiny checkpoints for all tests, written with numpy alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

WIDTH, INNER, WORDS = 8, 12, 16
_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "max_position_embeddings": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "vocab_size": WORDS,
}


def _shapes(layers: int) -> dict[str, tuple[int, ...]]:
    half = WIDTH // 2
    block = {
        "self_attn.q_proj": (WIDTH, WIDTH),
        "self_attn.k_proj": (half, WIDTH),
        "self_attn.v_proj": (half, WIDTH),
        "self_attn.o_proj": (WIDTH, WIDTH),
        "mlp.gate_proj": (INNER, WIDTH),
        "mlp.up_proj": (INNER, WIDTH),
        "mlp.down_proj": (WIDTH, INNER),
        "input_layernorm": (WIDTH,),
        "post_attention_layernorm": (WIDTH,),
    }
    shapes = {"model.embed_tokens.weight": (WORDS, WIDTH)}
    shapes |= {f"model.layers.{i}.{name}.weight": shape for i in range(layers) for name, shape in block.items()}
    return shapes | {"model.norm.weight": (WIDTH,), "lm_head.weight": (WORDS, WIDTH)}


@pytest.fixture
def write_llama(tmp_path: Path):
    """Write a Llama of `layers` layers with weights drawn by `seed`; `change` edits them before they are saved."""

    def write(name: str, seed: int, *, layers: int = 2, change: Any = None, folder: Path = tmp_path) -> Path:
        rng = np.random.default_rng(seed)
        arrays = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in _shapes(layers).items()}
        if change:
            change(arrays)
        (folder / name).mkdir(parents=True)
        save_file(arrays, folder / name / "model.safetensors", metadata={"format": "pt"})
        (folder / name / "config.json").write_text(json.dumps(_CONFIG | {"num_hidden_layers": layers}))
        return folder / name

    return write
