from __future__ import annotations

import pytest

from plait.structure import component, find_stacks, gradient_position

POSITIONS = {
    "llama": {
        "model.embed_tokens.weight": 0.0,
        "model.layers.0.mlp.up_proj.weight": 0.0,
        "model.layers.1.mlp.up_proj.weight": 0.5,
        "model.layers.2.self_attn.q_proj.weight": 1.0,
        "model.norm.weight": 1.0,
        "lm_head.weight": 1.0,
    },
    "gpt2": {"transformer.wte.weight": 0.0, "transformer.wpe.weight": 0.0, "transformer.ln_f.bias": 1.0},
    "gpt-neox": {"gpt_neox.embed_in.weight": 0.0, "gpt_neox.final_layer_norm.weight": 1.0},
    "bert": {
        "bert.embeddings.LayerNorm.bias": 0.0,
        "bert.encoder.layer.1.output.dense.weight": 0.5,
        "cls.predictions.transform.dense.weight": 1.0,
        "cls.predictions.bias": 1.0,
    },
    "t5": {
        "shared.weight": 0.0,
        "decoder.embed_tokens.weight": 0.0,
        "decoder.block.1.layer.2.DenseReluDense.wi.weight": 0.5,
        "encoder.final_layer_norm.weight": 1.0,
    },
    "mamba": {"backbone.embeddings.weight": 0.0, "backbone.norm_f.weight": 1.0},
    "gemma3": {"model.layers.2.mlp.up_proj.weight": 0.4},
    "vit": {
        "vit.embeddings.cls_token": 0.0,
        "vit.embeddings.patch_embeddings.projection.bias": 0.0,
        "classifier.weight": 1.0,
    },
    "whisper": {"model.encoder.conv1.weight": 0.0, "proj_out.weight": 1.0},
}


@pytest.mark.parametrize("family", POSITIONS)
def test_where_a_gradient_is_read(tiny, family):
    shapes, _ = tiny(family)
    stacks = find_stacks(shapes)
    assert POSITIONS[family].keys() <= shapes.keys()
    assert {name: gradient_position(name, stacks) for name in POSITIONS[family]} == POSITIONS[family]
    assert all(0 <= gradient_position(name, stacks) <= 1 for name in shapes)


def test_the_edges_of_a_gradient():
    assert gradient_position("layers.0.weight", find_stacks(["layers.0.weight"])) == 1.0
    assert gradient_position("embed_out.weight", ()) == 1.0, "GPT-NeoX's head, for all its name"
    assert gradient_position("classifier.0.weight", ()) == 1.0, "outside of the stacks given"


COMPONENTS = {
    "llama": {
        "names": {"model.embed_tokens.weight": "embeddings", "model.norm.weight": "norm", "lm_head.weight": "head"},
    },
    "gpt2": {
        "names": {
            "transformer.wpe.weight": "embeddings",
            "transformer.h.0.attn.c_proj.bias": "attention",
            "transformer.h.0.mlp.c_proj.weight": "mlp",
            "transformer.h.0.ln_1.bias": "norm",
            "transformer.ln_f.weight": "norm",
        },
    },
    "gpt-neox": {
        "names": {
            "gpt_neox.layers.0.attention.query_key_value.weight": "attention",
            "gpt_neox.layers.0.attention.dense.weight": "attention",
            "gpt_neox.layers.0.mlp.dense_4h_to_h.weight": "mlp",
            "gpt_neox.layers.0.post_attention_layernorm.weight": "norm",
        },
    },
    "bert": {
        "names": {
            "bert.embeddings.word_embeddings.weight": "embeddings",
            "bert.embeddings.LayerNorm.weight": "norm",
            "bert.encoder.layer.0.attention.self.query.weight": "attention",
            "bert.encoder.layer.0.attention.output.dense.weight": "attention",
            "bert.encoder.layer.0.attention.output.LayerNorm.weight": "norm",
            "bert.encoder.layer.0.intermediate.dense.bias": "mlp",
            "bert.encoder.layer.0.output.dense.weight": "mlp",
            "cls.predictions.decoder.weight": "head",
            "cls.predictions.transform.LayerNorm.bias": "norm",
            "cls.predictions.bias": "head",
        },
    },
    "t5": {
        "names": {
            "shared.weight": "embeddings",
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": "attention",
            "decoder.block.0.layer.1.EncDecAttention.k.weight": "attention",
            "decoder.block.0.layer.2.DenseReluDense.wo.weight": "mlp",
            "decoder.block.0.layer.2.layer_norm.weight": "norm",
        },
    },
    "mamba": {"names": {"backbone.layers.0.mixer.in_proj.weight": "other", "backbone.layers.0.norm.weight": "norm"}},
    "qwen3-moe": {
        "names": {
            "model.layers.0.mlp.experts.down_proj": "mlp",
            "model.layers.0.mlp.gate.weight": "mlp",
            "model.layers.0.self_attn.q_norm.weight": "norm",
        },
    },
    "phi3": {
        "names": {
            "model.layers.0.self_attn.qkv_proj.weight": "attention",
            "model.layers.0.mlp.gate_up_proj.weight": "mlp",
        },
    },
    "whisper": {"names": {"model.decoder.layers.0.fc1.weight": "mlp", "proj_out.weight": "head"}},
}


@pytest.mark.parametrize("family", COMPONENTS)
def test_what_tensors_are_for(tiny, family):
    shapes, _ = tiny(family)
    wanted = COMPONENTS[family]["names"]
    assert {name: component(name, shapes[name], 97) for name in wanted} == wanted


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt-neox", "bert", "t5", "gemma3", "qwen3-moe", "phi3", "olmo2"])
def test_nothing_in_a_transformer_is_other(tiny, family):
    shapes, _ = tiny(family)
    assert [name for name, shape in shapes.items() if component(name, shape, 97) == "other"] == []


def test_a_head_is_known_by_its_rows_where_the_name_says_nothing():
    assert component("output.weight", (97, 8), 97) == "head"
    assert component("output.weight", (97, 8), None) == "other"


def test_the_innermost_telling_segment_decides():
    assert component("layers.0.attention_block.mlp.up.weight", (16, 8), 97) == "mlp"
    assert component("layers.0.mlp_block.attn.dense.weight", (8, 8), 97) == "attention"
