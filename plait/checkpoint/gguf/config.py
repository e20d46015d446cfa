"""config.json as a GGUF file's metadata tells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from plait.checkpoint.gguf.families import COMMON, Family
from plait.checkpoint.gguf.header import Header, Packed
from plait.checkpoint.gguf.rope import ROPE_TENSORS, rope_settings
from plait.errors import CheckpointError

__all__ = ["config_of"]

_IDS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "padding_token_id": "pad_token_id"}
# The query's scale of the largest model of each family is another; llama.cpp knows them by their layers alone.
_SCALED_BY_WIDTH = {"gemma2": 46, "gemma3": 62}
_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
_OPTIONAL = frozenset({"rope_theta", "num_key_value_heads", "rope_local_base_freq", "sliding_window", *_CAPS})


def config_of(
    header: Header,
    family: Family,
    tensors: Mapping[str, Packed],
    dtype: str,
    read: Callable[[Packed], Any],
) -> dict[str, Any]:
    """Make config.json, with nothing in it that the file does not say or its architecture imply.

    Args:
        header: The metadata.
        family: The file's.
        tensors: By GGUF's names; which are there tells of biases and of a head of its own.
        dtype: Element type to state, such as "bfloat16".
        read: Reads a small tensor of floats.

    Raises:
        CheckpointError: a setting is missing, or something that the class cannot have.
    """
    name = family.architecture
    config: dict[str, Any] = {"architectures": [family.class_name], "model_type": family.model_type}
    for key, stated in (*COMMON, *family.settings):
        value = header.number(f"{name}.{stated}")
        if value is not None:
            config[key] = value
        elif key not in _OPTIONAL:
            raise CheckpointError(f"{header.file}: its metadata has no {name}.{stated}, so that {key} is not known.")
    config.setdefault("num_key_value_heads", config["num_attention_heads"])
    for key in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size"):
        most = len(tensors) if key == "num_hidden_layers" else 1 << 31
        if not isinstance(config[key], int) or not 0 < config[key] <= most:
            raise CheckpointError(f"{header.file}: its metadata gives {key} as {config[key]}, which cannot be.")
    config |= family.fixed
    config["vocab_size"] = tensors["token_embd.weight"].shape[0]
    config["tie_word_embeddings"] = "output.weight" not in tensors
    config |= _head(header, family, config) | _biases(family, tensors) | _gemma(header, family, config)
    if config.get("sliding_window") == 0:
        config["sliding_window"] = None
    config |= rope_settings(header, name, config, {key: read(tensors[key]) for key in ROPE_TENSORS if key in tensors})
    ids = {own: header.values.get(f"tokenizer.ggml.{key}") for key, own in _IDS.items()}
    config |= {key: value for key, value in ids.items() if value is not None}
    return config | {"torch_dtype": dtype}


def _head(header: Header, family: Family, config: Mapping[str, Any]) -> dict[str, Any]:
    usual = config["hidden_size"] // config["num_attention_heads"]
    size = header.number(f"{family.architecture}.attention.key_length", usual)
    if header.number(f"{family.architecture}.attention.value_length", size) != size:
        raise CheckpointError(f"{header.file}: heads whose keys and values differ in length are not read from GGUF.")
    return {"head_dim": size} if family.head_dim or size != usual else {}


def _biases(family: Family, tensors: Mapping[str, Packed]) -> dict[str, Any]:
    """Switches of the classes that have them; Qwen2 has its biases always."""
    if family.model_type in {"llama", "qwen3", "qwen3_moe", "gemma2", "gemma3_text", "gemma"}:
        found = {"attention_bias": "blk.0.attn_q.bias" in tensors}
        return found | ({"mlp_bias": "blk.0.ffn_up.bias" in tensors} if family.model_type == "llama" else {})
    return {}


def _gemma(header: Header, family: Family, config: Mapping[str, Any]) -> dict[str, Any]:
    if family.architecture not in _SCALED_BY_WIDTH:
        return {}
    by_width = config["num_hidden_layers"] == _SCALED_BY_WIDTH[family.architecture]
    usual = config["hidden_size"] // config["num_attention_heads"]
    length = header.number(f"{family.architecture}.attention.key_length", usual)
    found = {"query_pre_attn_scalar": usual if by_width else length}
    if family.architecture == "gemma3":
        pattern = header.values.get("gemma3.attention.sliding_window_pattern", 6)
        if isinstance(pattern, np.ndarray):
            kinds = ["sliding_attention" if local else "full_attention" for local in pattern.tolist()]
            return found | {"layer_types": kinds}
        local = config.get("rope_local_base_freq", 10000.0)
        return found | {"sliding_window_pattern": pattern, "rope_local_base_freq": local}
    return found
