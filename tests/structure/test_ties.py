from __future__ import annotations

import pytest

from plait.structure import declared_tie, embedding_and_heads, vocab_biases

LM = ("lm_head.weight",)
TABLES = {
    "llama": (("model.embed_tokens.weight",), LM),
    "gpt2": (("transformer.wte.weight",), LM),
    "gpt2-headless": (("wte.weight",), ()),
    "gpt-neox": (("gpt_neox.embed_in.weight",), LM),
    "bert": (("bert.embeddings.word_embeddings.weight",), ("cls.predictions.decoder.weight",)),
    "t5": (("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"), LM),
    "mamba": (("backbone.embeddings.weight",), LM),
    "gemma3": (("model.embed_tokens.weight",), LM),
    "gemma3-vision": (("model.language_model.embed_tokens.weight",), LM),
    "qwen3-moe": (("model.embed_tokens.weight",), LM),
    "phi3": (("model.embed_tokens.weight",), LM),
    "olmo2": (("model.embed_tokens.weight",), LM),
    "albert": (("albert.embeddings.word_embeddings.weight",), ("predictions.decoder.weight",)),
    "whisper": (("model.decoder.embed_tokens.weight",), ("proj_out.weight",)),
    "wav2vec2": ((), LM),
}
TIED = {"llama": False, "gpt2": True, "gpt-neox": False, "gemma3-vision": True, "qwen3-moe": False, "t5": True}


@pytest.mark.parametrize("family", TABLES)
def test_the_tables_of_tokens_in_real_models(tiny, family):
    shapes, config = tiny(family)
    assert embedding_and_heads(shapes, config) == TABLES[family]


# Without a config, BERT's and GPT-2's tables of positions (512 and 16 rows here, 97 tokens) are the traps.
@pytest.mark.parametrize("family", sorted(TABLES.keys() - {"wav2vec2"}))
def test_the_tables_are_found_without_a_config(tiny, family):
    shapes, _ = tiny(family)
    assert embedding_and_heads(shapes, None) == TABLES[family]


def test_the_checkpoint_of_gpt_neox_names_its_head_like_an_embedding():
    shapes = {"gpt_neox.embed_in.weight": (97, 8), "embed_out.weight": (97, 8)}
    assert embedding_and_heads(shapes, {"vocab_size": 97}) == (("gpt_neox.embed_in.weight",), ("embed_out.weight",))


def test_a_padded_table_is_found_though_the_config_states_fewer_tokens():
    shapes = {"model.embed_tokens.weight": (128, 8), "lm_head.weight": (128, 8), "score.weight": (2, 8)}
    assert embedding_and_heads(shapes, {"vocab_size": 97}) == (("model.embed_tokens.weight",), LM)


def test_tables_of_another_kind_with_as_many_rows_are_left_out():
    shapes = {"wte.weight": (16, 8), "wpe.weight": (16, 8), "h.0.attn.c_attn.weight": (16, 8), "ln_f.weight": (16,)}
    shapes["embeddings.token_type_embeddings.weight"] = (16, 8)
    assert embedding_and_heads(shapes, {"vocab_size": 16}) == (("wte.weight",), ())
    assert embedding_and_heads({}, {"vocab_size": 16}) == ((), ())


def test_a_matrix_of_a_tower_with_as_many_rows_is_no_head():
    shapes = {"language_model.embed_tokens.weight": (48, 16), "vision_tower.head.attention.in_proj_weight": (48, 16)}
    shapes["model.visual.merger.weight"] = (48, 16)
    assert embedding_and_heads(shapes, {"vocab_size": 48}) == (("language_model.embed_tokens.weight",), ())


def test_the_commonest_rows_decide_where_no_name_helps():
    shapes = {"a.weight": (97, 8), "b.weight": (97, 8), "c.weight": (200, 8)}
    assert embedding_and_heads(shapes, None) == ((), ("a.weight", "b.weight"))


def test_biases_with_one_number_a_token(tiny):
    shapes, config = tiny("bert")
    assert vocab_biases(shapes, config) == ("cls.predictions.bias", "cls.predictions.decoder.bias")
    assert vocab_biases(*tiny("llama")) == ()


@pytest.mark.parametrize("family", TIED)
def test_the_tie_as_declared(tiny, family):
    assert declared_tie(tiny(family)[1]) is TIED[family]


def test_the_tie_of_nested_and_silent_configs():
    assert declared_tie({"text_config": {"tie_word_embeddings": True}}) is True
    assert declared_tie({"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": True}}) is False
    assert declared_tie({"vocab_size": 97}) is None
    assert declared_tie(None) is None
