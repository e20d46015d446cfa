"""Tiny random models of many families, made once by transformers: a base and two experts near it, of each."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

VOCAB, WIDTH = 48, 16
_TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
_KINDS = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
# family -> (config class, model class, its config)
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", _TEXT | {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("MistralConfig", "MistralForCausalLM", _TEXT | {"sliding_window": 16}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _TEXT),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", _TEXT | {"tie_word_embeddings": True}),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        _TEXT | {"layer_types": _KINDS, "sliding_window": 8, "tie_word_embeddings": True},
    ),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", _TEXT | {"sliding_window": 16}),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {"vocab_size": VOCAB, "n_embd": WIDTH, "n_layer": 4, "n_head": 2, "n_positions": 32, "bos_token_id": 1},
    ),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", _TEXT | {"rotary_pct": 0.5}),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", _TEXT),
    "bert": ("BertConfig", "BertForMaskedLM", _TEXT | {"tie_word_embeddings": True}),
    "t5": (
        "T5Config",
        "T5ForConditionalGeneration",
        {"vocab_size": VOCAB, "d_model": WIDTH, "d_kv": 8, "d_ff": 24, "num_layers": 3, "num_heads": 2},
    ),
    "mamba": (
        "MambaConfig",
        "MambaForCausalLM",
        {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": 3, "state_size": 4, "conv_kernel": 3},
    ),
    "llava": (
        "LlavaConfig",
        "LlavaForConditionalGeneration",
        {
            "text_config": _TEXT | {"model_type": "llama"},
            "vision_config": {"model_type": "clip_vision_model", "hidden_size": WIDTH, "intermediate_size": 24}
            | {"num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8},
            "image_token_id": 40,
            "tie_word_embeddings": False,
        },
    ),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        _TEXT | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "decoder_sparse_step": 1},
    ),
}


@dataclass(frozen=True)
class Family:
    """Three saved models of one architecture, and how to load one."""

    name: str
    kind: Any
    base: Path
    a: Path
    b: Path

    def load(self, folder: Path) -> tuple[Any, dict[str, Any]]:
        """Load with the family's own class: the model, and what transformers says about its keys."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.kind.from_pretrained(folder, output_loading_info=True)


def _build(kind: Any, config: Any, seed: int) -> Any:
    import torch

    torch.manual_seed(seed)
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms start out constant, which would hide their loss
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def _nudged(model: Any, seed: int) -> Any:
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return model


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory):
    """Make a family's three models, once a session; `options` change its config."""
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.set_verbosity_error()
    root = tmp_path_factory.mktemp("families")
    known: dict[str, Family] = {}

    def make(name: str, label: str = "", kind: str | None = None, **options: Any) -> Family:
        label = label or name
        if label not in known:
            config_name, model_name, settings = FAMILIES[name]
            config = getattr(transformers, config_name)(**settings | options)
            model_class = getattr(transformers, kind or model_name)
            places = [root / label / part for part in ("base", "a", "b")]
            for seed, place in enumerate(places):
                model = _build(model_class, config, 1)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    (_nudged(model, seed) if seed else model).save_pretrained(place)
            known[label] = Family(label, model_class, *places)
        return known[label]

    return make


@pytest.fixture
def recipe(tmp_path: Path):
    """Write a recipe's text to a file."""

    def write(text: str, name: str = "recipe.yml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.fixture
def clean():
    """Fail when transformers found any key missing, unexpected or of another shape."""

    def check(info: dict[str, Any]) -> None:
        for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            assert not info.get(key), (key, info[key])

    return check
