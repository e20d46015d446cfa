"""config.json as metadata of a GGUF file, and the check that the file says what the config says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from plait.checkpoint.gguf.config import config_of
from plait.checkpoint.gguf.families import COMMON, Family
from plait.checkpoint.gguf.header import Header
from plait.checkpoint.gguf.rope import LONG, ONE, SHORT, llama3_factors
from plait.errors import CheckpointError
from plait.structure.rope import rope

__all__ = ["Settings", "check_settings", "settings_of"]

_FLOATS = frozenset(
    {"rms_norm_eps", "rope_theta", "rope_local_base_freq", "attn_logit_softcapping", "final_logit_softcapping"}
)
_DEFAULT_THETA = {"gemma3_text": 1e6, "mixtral": 1e6}
# What may differ without the model's being another, or is compared as a whole further down.
_FREE = frozenset(
    [
        "architectures",
        "model_type",
        "torch_dtype",
        "rope_scaling",
        "rope_theta",
        "rope_local_base_freq",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    ]
)
Settings = tuple[dict[str, float | str], dict[str, tuple[float, ...]]]
"""Metadata by key, and tensors of rope factors by name."""


def settings_of(config: Mapping[str, Any], family: Family, source: str) -> Settings:
    """Translate config.json.

    Raises:
        CheckpointError: a setting is missing, or llama.cpp has none like it.
    """
    turning = rope([config])
    said = {**config, "rope_theta": _DEFAULT_THETA.get(family.model_type, 10000.0)}
    said |= {key: value for key, value in turning.items() if key != "rope_scaling"}
    said.setdefault("num_key_value_heads", config.get("num_attention_heads"))
    said.setdefault("num_experts", config.get("num_local_experts"))
    found: dict[str, float | str] = {}
    for key, stated in (*COMMON, *family.settings):
        value = said.get(key)
        if value is None and key in {name for name, _ in COMMON}:
            raise CheckpointError(f"{source}: its config.json has no {key}, which a GGUF file must state.")
        if value is not None:
            found[stated] = float(value) if key in _FLOATS else int(value)
    size = int(said.get("head_dim") or said["hidden_size"] // said["num_attention_heads"])
    found |= {"attention.key_length": size, "attention.value_length": size, "vocab_size": int(said["vocab_size"])}
    turned = int(size * (turning.get("partial_rotary_factor") or 1.0))
    found["rope.dimension_count"] = turned
    more, factors = _scaling(turning["rope_scaling"], said, turned, source)
    if family.architecture == "phi3":
        found.setdefault("attention.sliding_window", 0)
        found.setdefault("rope.scaling.original_context_length", found["context_length"])
    return found | more, factors


def _scaling(scaling: Mapping[str, Any] | None, said: Mapping[str, Any], size: int, source: str) -> Settings:
    if scaling is None:
        return {}, {}
    kind, factor = scaling["rope_type"], scaling.get("factor")
    if kind == "llama3":
        settings = {"original_max_position_embeddings": 8192, **said, **scaling}
        return {}, {ONE: tuple(llama3_factors(said["rope_theta"], size, settings).tolist())}
    if kind == "linear" and factor and set(scaling) <= {"rope_type", "factor"}:
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(factor)}, {}
    if kind == "yarn" and factor and set(scaling) <= {"rope_type", "factor"}:
        length = int(said.get("original_max_position_embeddings") or said["max_position_embeddings"])
        return {
            "rope.scaling.type": "yarn", "rope.scaling.factor": float(factor),
            "rope.scaling.original_context_length": length,
        }, {}  # fmt: skip
    if kind == "longrope" and set(scaling) <= {"rope_type", "short_factor", "long_factor"}:
        short, long = (tuple(map(float, scaling[key])) for key in ("short_factor", "long_factor"))
        return _longrope(said), {LONG: long, SHORT: short}
    raise CheckpointError(f"{source}: rope scaling {dict(scaling)} is not written to GGUF.")


def _longrope(said: Mapping[str, Any]) -> dict[str, float | str]:
    """Source: transformers' `_compute_longrope_parameters`, for the attention factor."""
    original = int(said["original_max_position_embeddings"])
    ratio = said["max_position_embeddings"] / original
    attention = np.sqrt(1 + np.log(ratio) / np.log(original)) if ratio > 1 else 1.0
    return {"rope.scaling.type": "longrope", "rope.scaling.attn_factor": float(attention)}


def check_settings(header: Header, config: Mapping[str, Any], family: Family, source: str) -> list[str]:
    """Read the file's metadata back as a config, and hold it against the one that it was made from.

    Returns: notes on settings that llama.cpp has no place for, but its own converter leaves out as well.

    Raises:
        CheckpointError: settings would be lost that make it another model; all are named.
    """
    tensors = {tensor.name: tensor for tensor in header.tensors}
    back = config_of(
        header, family, tensors, "float32", lambda packed: _floats(packed.file, packed.offset, packed.shape)
    )
    lost = [
        f"{key} {config[key]!r} (it would be {value!r})"
        for key, value in back.items()
        if key not in _FREE and config.get(key) is not None and not _same(config[key], value)
    ]
    lost += _layers(config, family)
    lost += _positions(back, config)
    if lost:
        raise CheckpointError(f"{source}: llama.cpp's {family.architecture} has no place for {'; '.join(lost)}.")
    if "sliding_window" not in back and _has_window(config):
        return [f"sliding_window {config['sliding_window']} is left out: llama.cpp attends to all of the text."]
    return []


def _positions(back: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Tell which settings of rotary positions are lost; Llama 3's scaling is held against its factors when it is read."""
    turning, stated = {"partial_rotary_factor": 1.0, **rope([back])}, rope([config])
    if all((one["rope_scaling"] or {}).get("rope_type") == "llama3" for one in (turning, stated)):
        stated = {key: stated[key] for key in stated if key not in {"rope_scaling", "original_max_position_embeddings"}}
    return [f"rope: {key} {value!r}" for key, value in stated.items() if not _same(value, turning.get(key))]


def _layers(config: Mapping[str, Any], family: Family) -> list[str]:
    """Tell which kinds of layers are not where the architecture has them."""
    period = {"gemma2": 2, "gemma3": 6}.get(family.architecture, 1)
    kinds = config.get("layer_types") or []
    usual = ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(len(kinds))]
    lost = ["layer_types"] if list(kinds) != usual else []
    pattern = config.get("sliding_window_pattern")
    lost += [f"sliding_window_pattern {pattern}"] if pattern not in {None, period} else []
    sparse: dict[str, Any] = {"decoder_sparse_step": 1, "mlp_only_layers": []}
    return lost + [f"{key} {config[key]!r}" for key, value in sparse.items() if config.get(key, value) != value]


def _has_window(config: Mapping[str, Any]) -> bool:
    return bool(config.get("sliding_window")) and config.get("use_sliding_window", True)


def _floats(file: str, offset: int, shape: tuple[int, ...]) -> Any:
    return np.fromfile(file, np.float32, int(np.prod(shape)), offset=offset)


def _same(one: Any, other: Any) -> bool:
    """Whether two settings are one; float32 keeps seven digits."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(key == "type" or _same(one[key], other.get(key)) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float | int) and isinstance(other, float | int):
        return abs(one - other) <= 1e-6 * abs(one)
    return bool(one == other)
