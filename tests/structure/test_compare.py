from __future__ import annotations

import pytest

from plait.structure import config_differences


def differences(first, second):
    return config_differences([("a", first), ("b", second)])


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt-neox", "bert", "t5", "gemma3", "gemma3-vision", "phi3"])
def test_a_config_differs_in_nothing_from_itself(tiny, family):
    _, config = tiny(family)
    assert differences(config, dict(config)) == ()


def test_a_sentence_names_every_value_and_who_has_it():
    named = [("base", {"rope_theta": 1e4}), ("x", {"rope_theta": 1e6}), ("y", {"rope_theta": 10000}), ("z", None)]
    assert config_differences(named) == ("rope_theta differs: 10000.0 (base, y), 1000000.0 (x).",)


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ({"rms_norm_eps": 1e-5}, {"rms_norm_eps": 1e-6}, "rms_norm_eps differs: 1e-05 (a), 1e-06 (b)."),
        ({"layer_norm_eps": 1e-5}, {"layer_norm_epsilon": 1e-12}, "rms_norm_eps differs: 1e-05 (a), 1e-12 (b)."),
        ({"hidden_act": "silu"}, {"hidden_act": "gelu"}, "hidden_activation differs: silu (a), gelu (b)."),
        ({"num_attention_heads": 8}, {"num_attention_heads": 4}, "num_attention_heads differs: 8 (a), 4 (b)."),
        ({"sliding_window": None}, {"sliding_window": 4096}, "sliding_window differs: null (a), 4096 (b)."),
        (
            {"final_logit_softcapping": 30.0},
            {"final_logit_softcapping": None},
            "final_logit_softcapping differs: 30.0 (a), null (b).",
        ),
        ({"model_type": "llama"}, {"model_type": "mistral"}, "model_type differs: llama (a), mistral (b)."),
        (
            {"tie_word_embeddings": True},
            {"tie_word_embeddings": False},
            "tie_word_embeddings differs: True (a), False (b).",
        ),
        (
            {"layer_types": ["full", "local", "full"]},
            {"layer_types": ["full", "full"]},
            "layer_types differs, first at layer 1: local (a), full (b).",
        ),
        # True means the root of the width, 1 means one.
        ({"scale_embedding": True}, {"scale_emb": 1}, "scale_embedding differs: True (a), 1 (b)."),
        ({}, {"rope_scaling": {"type": "linear", "factor": 2.0}}, None),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_scaling": {"rope_type": "yarn"}},
            'rope_scaling differs: {"factor": 2.0, "rope_type": "linear"} (a), {"rope_type": "yarn"} (b).',
        ),
        ({"rotary_pct": 0.25}, {"partial_rotary_factor": 0.5}, "partial_rotary_factor differs: 0.25 (a), 0.5 (b)."),
        (
            {"text_config": {"query_pre_attn_scalar": 256}},
            {"query_pre_attn_scalar": 168},
            "query_pre_attn_scalar differs: 256 (a), 168 (b).",
        ),
        (
            {"vision_config": {"hidden_act": "gelu"}},
            {"vision_config": {"hidden_act": "silu"}},
            "vision_config.hidden_activation differs: gelu (a), silu (b).",
        ),
    ],
)
def test_what_is_told(first, second, sentence):
    wanted = sentence or 'rope_scaling differs: null (a), {"factor": 2.0, "rope_type": "linear"} (b).'
    assert differences(first, second) == (wanted,)
    assert len(differences(second, first)) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # What only one states, and null where it means "not said".
        ({"rms_norm_eps": 1e-5}, {}),
        ({"num_key_value_heads": None}, {"num_key_value_heads": 2}),
        # Two manners of one meaning.
        ({"rope_theta": 1e6, "rope_scaling": None}, {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}),
        (
            {"rope_theta": 5e5, "rope_scaling": {"type": "su", "long_factor": [1.0], "short_factor": [2.0]}},
            {
                "rope_parameters": {
                    "rope_theta": 5e5,
                    "rope_type": "longrope",
                    "long_factor": [1.0],
                    "short_factor": [2.0],
                }
            },
        ),
        (
            {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
            {
                "rope_parameters": {
                    "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0},
                    "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
                }
            },
        ),
        (
            {"rotary_emb_base": 1e4, "rotary_pct": 0.25},
            {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}},
        ),
        ({"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"}, {"hidden_activation": "gelu_pytorch_tanh"}),
        # A window that is not in use.
        ({"use_sliding_window": False, "sliding_window": 4096}, {"use_sliding_window": False, "sliding_window": None}),
        # A text model and the same one within a vision model, whose top level says something of its own.
        (
            {"model_type": "gemma3_text", "rope_theta": 1e6},
            {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "rope_theta": 1e6}},
        ),
        # What changes no meaning.
        ({"dtype": "float16", "use_cache": True}, {"torch_dtype": "bfloat16", "use_cache": False}),
    ],
)
def test_what_is_no_difference(first, second):
    assert differences(first, second) == ()


def test_a_local_base_is_compared_in_either_manner():
    nested = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 2e4}}
    flat = {"rope_theta": 1e6, "rope_local_base_freq": 1e4}
    assert differences(flat, {"rope_parameters": nested}) == (
        "rope_local_base_freq differs: 10000.0 (a), 20000.0 (b).",
    )
