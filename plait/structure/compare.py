"""Differences between configs that change what the weights mean, though every name and shape agrees."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plait.structure.configs import Config, language_configs, other_configs
from plait.structure.rope import rope

__all__ = ["config_differences"]

# One entry a meaning; the names are what different families call it. The first name is what a report says.
_MEANINGS: tuple[tuple[str, ...], ...] = (
    ("model_type",),
    ("tie_word_embeddings",),
    ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "norm_epsilon", "norm_eps"),
    ("hidden_activation", "hidden_act", "activation_function", "feed_forward_proj", "afn", "activation"),
    ("num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads"),
    ("decoder_attention_heads",),
    ("num_key_value_heads", "num_kv_heads", "multi_query_group_num"),
    ("head_dim", "d_kv", "kv_channels"),
    ("position_embedding_type", "pos_emb"),
    ("alibi",),
    ("relative_attention_num_buckets",),
    ("relative_attention_max_distance",),
    ("no_rope_layers",),
    ("layer_types", "layers_block_type", "block_types", "hybrid_override_pattern"),
    ("attention_layers",),
    ("attn_layer_period",),
    ("attn_layer_offset",),
    ("expert_layer_period",),
    ("expert_layer_offset",),
    ("query_pre_attn_scalar",),
    ("scale_embedding", "scale_emb"),
    ("embedding_multiplier",),
    ("residual_multiplier",),
    ("attention_multiplier",),
    ("logit_scale", "logits_scaling", "logits_scale", "lm_head_multiplier"),
    ("scale_depth",),
    ("dim_model_base",),
    ("scale_attn_weights",),
    ("scale_attn_by_inverse_layer_idx",),
    ("use_parallel_residual", "parallel_attn"),
    ("num_experts_per_tok", "num_experts_per_token", "moe_topk"),
    ("norm_topk_prob",),
    ("routed_scaling_factor",),
    ("scoring_func",),
    ("topk_method",),
    ("n_group",),
    ("topk_group",),
)
# Here null is a statement: no cap, no window.
_NULL_COUNTS = ("attn_logit_softcapping", "final_logit_softcapping", "sliding_window")

Values = dict[str, Any]


def config_differences(named_configs: Sequence[tuple[str, Config | None]]) -> tuple[str, ...]:
    """Say in one sentence each what differs in meaning between configs, naming every value and who has it.

    Compared are the base and scaling of rotary positions (in the manner of transformers 4 and 5 alike), the epsilon of
    norms, the activation, soft caps, sliding windows, kinds of layers, heads, multipliers, routing of experts, the
    model type and tying; under any of the names that families give them, at the top level or in a nested text
    config. The configs of vision and audio parts are compared by their path. A value is compared only between
    configs that state it, save the scaling of rotary positions, where silence means none.

    Args:
        named_configs: (name of the model as a reader knows it, its config.json or None), in recipe order.

    >>> config_differences([("a", {"rope_theta": 1e4}), ("b", {"rope_parameters": {"rope_theta": 1e6}})])
    ('rope_theta differs: 10000.0 (a), 1000000.0 (b).',)
    """
    read = [(name, _values(config)) for name, config in named_configs if config is not None]
    keys = dict.fromkeys(key for _, values in read for key in values)
    sentences = []
    for key in keys:
        holders = [(name, values[key]) for name, values in read if key in values]
        sentence = _sentence(key, holders)
        if sentence:
            sentences.append(sentence)
    return tuple(sentences)


def _values(config: Config) -> Values:
    # A nested text config speaks of the language model more surely than the top level, which may repeat it stale;
    # only tying is the top level's.
    nested = [part for _, part in language_configs(config)]
    values = _meanings(nested[1:] + nested[:1])
    tie = next((part["tie_word_embeddings"] for part in nested if part.get("tie_word_embeddings") is not None), None)
    if tie is not None:
        values["tie_word_embeddings"] = tie
    values.update(rope(nested[1:] + nested[:1]))
    for path, part in other_configs(config):
        found = _meanings([part])
        values.update({".".join((*path, key)): value for key, value in found.items()})
    return values


def _meanings(configs: Sequence[Config]) -> Values:
    values: Values = {}
    for names in _MEANINGS:
        found = _first(configs, names, lambda value: value is not None)
        if found:
            values[names[0]] = found[0]
    for name in _NULL_COUNTS:
        found = _first(configs, (name,), lambda _: True)
        if found:
            values[name] = found[0]
    switch = _first(configs, ("use_sliding_window",), lambda value: value is not None)
    if switch and not switch[0]:
        # Then the window is not in use, whatever is written; transformers 5 writes null.
        values["sliding_window"] = None
    return values


def _first(configs: Sequence[Config], names: Sequence[str], counts: Callable[[Any], bool]) -> tuple[Any, ...]:
    """The first value that counts, in a tuple of one; () where there is none."""
    for config in configs:
        for name in names:
            if name in config and counts(config[name]):
                return (config[name],)
    return ()


def _sentence(key: str, holders: Sequence[tuple[str, Any]]) -> str:
    lists = [value for _, value in holders if isinstance(value, list | tuple)]
    if lists and len(lists) == len(holders):
        return _list_sentence(key, holders)
    by_value = _group(holders)
    return f"{key} differs: {by_value}." if by_value else ""


def _list_sentence(key: str, holders: Sequence[tuple[str, Any]]) -> str:
    # One entry a layer: models of different depth differ only where both have a layer.
    for index in range(min(len(value) for _, value in holders)):
        by_value = _group([(name, value[index]) for name, value in holders])
        if by_value:
            return f"{key} differs, first at layer {index}: {by_value}."
    return ""


def _group(holders: Sequence[tuple[str, Any]]) -> str:
    """The values with their holders, or "" when they are all the same. 1 and 1.0 are the same, True is not 1."""
    groups: list[tuple[Any, list[str]]] = []
    for name, value in holders:
        for other, names in groups:
            if other == value and isinstance(other, bool) == isinstance(value, bool):
                names.append(name)
                break
        else:
            groups.append((value, [name]))
    if len(groups) < 2:
        return ""
    return ", ".join(f"{_text(value)} ({', '.join(names)})" for value, names in groups)


def _text(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, sort_keys=True, default=str)
    return "null" if value is None else str(value)
