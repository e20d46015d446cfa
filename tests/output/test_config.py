from __future__ import annotations

import json
from copy import deepcopy

import pytest

from plait.output.config import output_config


def messages(notes, warning=False):
    return [str(note) for note in notes if note.warning is warning]


def twice(config, *ranges):
    """Layers of one config, by half-open ranges."""
    return [(config, index) for start, end in ranges for index in range(start, end)]


@pytest.fixture(scope="module")
def hf():
    return pytest.importorskip("transformers")


def as_json(config):
    return json.loads(config.to_json_string(use_diff=False))


def load(hf, tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return hf.AutoConfig.from_pretrained(tmp_path)


# ── what real config classes make of the result ──────────────────────────────────────────────────────────────────────

SIZES = {"vocab_size": 97, "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GQA = SIZES | TOKENS | {"num_key_value_heads": 1}
OVERLAP = ((0, 5), (2, 6))


def test_gemma3_keeps_each_layers_attention(hf, tmp_path):
    donor = as_json(hf.Gemma3TextConfig(**GQA, num_hidden_layers=6, head_dim=4))
    kinds = donor["layer_types"]
    assert kinds == ["sliding_attention"] * 5 + ["full_attention"]
    config, notes = output_config(donor, layers=twice(donor, *OVERLAP))
    loaded = load(hf, tmp_path, config)
    assert loaded.num_hidden_layers == 9
    assert loaded.layer_types == kinds[0:5] + kinds[2:6]
    assert messages(notes) == ["num_hidden_layers: 6 -> 9", "layer_types: 6 entries -> 9 entries"]
    assert messages(notes, warning=True) == [], "layer_types makes sliding_window_pattern idle"


def test_gemma3_within_a_vision_model(hf, tmp_path):
    vision = SIZES | {"num_hidden_layers": 6, "image_size": 28, "patch_size": 14}
    del vision["vocab_size"]
    text = GQA | {"num_hidden_layers": 6, "head_dim": 4}
    donor = as_json(hf.Gemma3Config(text_config=text, vision_config=vision))
    config, _ = output_config(donor, layers=twice(donor, *OVERLAP), vocab_size=128, dtype="bfloat16")
    loaded = load(hf, tmp_path, config)
    assert (loaded.text_config.num_hidden_layers, loaded.text_config.vocab_size) == (9, 128)
    assert loaded.text_config.layer_types[4:6] == ["sliding_attention", "sliding_attention"]
    assert loaded.text_config.layer_types.count("full_attention") == 1
    assert loaded.vision_config.num_hidden_layers == 6
    assert "num_hidden_layers" not in config
    assert "vocab_size" not in config


@pytest.mark.parametrize("name", ["Qwen2Config", "Qwen3Config"])
def test_qwen_with_windows_in_its_last_layers(hf, tmp_path, name):
    shape = GQA | {"num_hidden_layers": 4, "max_window_layers": 2, "use_sliding_window": True, "sliding_window": 16}
    donor = as_json(getattr(hf, name)(**shape))
    config, _ = output_config(donor, layers=twice(donor, (0, 2), (0, 4)))
    full, sliding = "full_attention", "sliding_attention"
    assert load(hf, tmp_path, config).layer_types == [full] * 4 + [sliding] * 2
    assert config["max_window_layers"] == 4
    # As configs were written before transformers stated layer_types: the bound alone must say it.
    donor.pop("layer_types")
    config, notes = output_config(donor, layers=twice(donor, (0, 2), (0, 4)))
    assert load(hf, tmp_path, config).layer_types == [full] * 4 + [sliding] * 2
    assert messages(notes, warning=True) == []
    config, notes = output_config(donor, layers=twice(donor, (0, 4), (0, 4)))
    assert [note.key for note in notes if note.warning] == ["max_window_layers"]
    assert config["max_window_layers"] == 2


def test_t5_counts_two_stacks(hf, tmp_path):
    shape = {"vocab_size": 97, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_heads": 2}
    donor = as_json(hf.T5Config(**shape, num_layers=3, num_decoder_layers=3))
    layers = twice(donor, (0, 3), (1, 3))
    for prefix, counts in (("", (5, 5)), ("decoder.block", (3, 5)), ("encoder.block", (5, 3))):
        config, notes = output_config(donor, layers=layers, stack_prefix=prefix)
        loaded = load(hf, tmp_path, config)
        assert (loaded.num_layers, loaded.num_decoder_layers) == counts
        assert messages(notes, warning=True) == []
    silent = {key: value for key, value in donor.items() if key != "num_decoder_layers"}
    _, notes = output_config(silent, layers=layers, stack_prefix="encoder.block")
    assert messages(notes, warning=True) == ["num_layers counts the encoder's layers and the decoder's alike"]


def test_unequal_sides_are_told_apart():
    donor = {"is_encoder_decoder": True, "encoder_layers": 2, "decoder_layers": 3, "num_hidden_layers": 2}
    config, _ = output_config(donor, layers=twice(donor, (0, 3), (2, 3)), stack_prefix="model.decoder.layers")
    assert config == donor | {"decoder_layers": 4}


@pytest.mark.parametrize(
    ("name", "shape", "key"),
    [
        ("GPT2Config", TOKENS | {"vocab_size": 97, "n_embd": 8, "n_layer": 3, "n_head": 2}, "n_layer"),
        ("MambaConfig", TOKENS | {"vocab_size": 97, "hidden_size": 8, "num_hidden_layers": 3}, "num_hidden_layers"),
        ("BertConfig", SIZES | TOKENS | {"num_hidden_layers": 3}, "num_hidden_layers"),
        ("LlamaConfig", GQA | {"num_hidden_layers": 3}, "num_hidden_layers"),
    ],
)
def test_one_key_counts_the_layers(hf, tmp_path, name, shape, key):
    donor = as_json(getattr(hf, name)(**shape))
    config, notes = output_config(donor, layers=twice(donor, (0, 2), (0, 3)), stack_length=3)
    assert config == donor | {key: 5}
    assert load(hf, tmp_path, config).num_hidden_layers == 5
    assert messages(notes) == [f"{key}: 3 -> 5"]


def test_gpt_neo_writes_its_runs_out(hf, tmp_path):
    donor = as_json(
        hf.GPTNeoConfig(
            **TOKENS,
            vocab_size=97,
            hidden_size=8,
            num_heads=2,
            num_layers=4,
            attention_types=[[["global", "local"], 2]],
        )
    )
    config, _ = output_config(donor, layers=twice(donor, (0, 3), (2, 4)))
    loaded = load(hf, tmp_path, config)
    assert loaded.attention_layers == ["global", "local", "global", "global", "local"]


def test_nemotron_has_no_count_but_a_list(hf, tmp_path):
    kinds = ["linear_attention", "moe", "full_attention", "mlp"]
    donor = as_json(hf.NemotronHConfig(**GQA, layers_block_type=kinds))
    donor.pop("num_hidden_layers", None)
    config, notes = output_config(donor, layers=twice(donor, (0, 2), (1, 4)), stack_length=4)
    loaded = load(hf, tmp_path, config)
    assert loaded.layers_block_type == ["linear_attention", "moe", "moe", "full_attention", "mlp"]
    assert loaded.num_hidden_layers == 5
    assert messages(notes, warning=True) == []


def test_mixture_layers_are_renumbered(hf, tmp_path):
    shape = GQA | {"num_hidden_layers": 4, "head_dim": 4, "num_experts": 4, "moe_intermediate_size": 4}
    donor = as_json(hf.Qwen3MoeConfig(**shape, mlp_only_layers=[1]))
    other = as_json(hf.Qwen3MoeConfig(**shape, mlp_only_layers=[0, 3]))
    layers = [*twice(donor, (0, 3)), *twice(other, (0, 1), (2, 4))]
    config, notes = output_config(donor, layers=layers)
    assert load(hf, tmp_path, config).mlp_only_layers == [1, 3, 5]
    assert messages(notes) == ["num_hidden_layers: 4 -> 6", "mlp_only_layers: [1] -> [1, 3, 5]"]


# ── rules, in small ──────────────────────────────────────────────────────────────────────────────────────────────────

HYBRID = {
    "model_type": "x",
    "num_hidden_layers": 4,
    "eos_token_id": [1, 2, 3, 4],
    "layers_block_type": ["mamba", "mamba", "attention", "mamba"],
    "hybrid_override_pattern": "MM*-",
    "num_key_value_heads": [0, 0, 2, 0],
    "no_rope_layers": [0, 1, 1, 0],
    "full_attn_idxs": [2],
    "attn_layer_indices": [],
    "block_configs": [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}],
    "attn_config": {"windows": [10, 11, 12, 13]},
    "rope_scaling": {"long_factor": [1.0, 2.0, 3.0, 4.0], "bands": [1, 2, 3, 4]},
    "vision_config": {"num_hidden_layers": 4, "layer_types": ["v", "v", "v", "w"]},
    "audio_config": {"windows": [1, 2, 3, 4]},
    "draft_config": {"num_hidden_layers": 5, "windows": [1, 2, 3, 4]},
    "use_cache": True,
}


def test_every_layer_takes_its_own_sources_settings():
    other = {
        "num_hidden_layers": 2,
        "layers_block_type": ["attention", "moe"],
        "hybrid_override_pattern": "*E",
        "num_key_value_heads": (5, 0),
        "no_rope_layers": [1, 1],
        "full_attn_idxs": [0],
        "attn_layer_indices": [],
        "block_configs": [{"n": 10}, {"n": 11}],
        "attn_config": {"windows": [20, 21]},
    }
    before = deepcopy((HYBRID, other))
    config, notes = output_config(HYBRID, layers=[*twice(HYBRID, (1, 4)), *twice(other, (0, 2))], stack_length=4)
    assert (HYBRID, other) == before
    assert config == HYBRID | {
        "num_hidden_layers": 5,
        "layers_block_type": ["mamba", "attention", "mamba", "attention", "moe"],
        "hybrid_override_pattern": "M*-*E",
        "num_key_value_heads": [0, 2, 0, 5, 0],
        "no_rope_layers": [1, 1, 0, 1, 1],
        "full_attn_idxs": [1, 3],
        "block_configs": [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 10}, {"n": 11}],
        "attn_config": {"windows": [11, 12, 13, 20, 21]},
    }
    assert list(config) == list(HYBRID)
    assert messages(notes, warning=True) == []
    assert "attn_config.windows: [10, 11, 12, 13] -> [11, 12, 13, 20, 21]" in messages(notes)
    config["block_configs"][0]["n"] = -1
    config["vision_config"]["layer_types"].append("z")
    assert (HYBRID, other) == before, "the result shares nothing with the inputs"


def test_layers_each_in_its_place_change_nothing():
    assert output_config(HYBRID, layers=twice(HYBRID, (0, 4))) == (HYBRID, ())
    assert output_config(HYBRID) == (HYBRID, ())


def test_a_source_that_has_no_such_list_is_told():
    plain = {"num_hidden_layers": 4}
    config, notes = output_config(
        {"num_hidden_layers": 4, "layer_types": list("abcd"), "mlp_only_layers": [0]},
        layers=[({"num_hidden_layers": 4, "layer_types": list("abcd"), "mlp_only_layers": [0]}, 0), (plain, 2)],
    )
    assert config == {"num_hidden_layers": 2, "layer_types": ["a", "c"], "mlp_only_layers": [0]}
    assert [(note.key, "1 output layers" in note.message) for note in notes if note.warning] == [
        ("layer_types", True),
        ("mlp_only_layers", True),
    ]


def test_a_source_is_read_where_it_speaks_of_its_layers():
    donor = {"num_hidden_layers": 3, "layer_types": list("abc")}
    draft = {"num_hidden_layers": 4, "layer_types": list("wxyz"), "draft_config": {"num_layers": 1}}
    # A vision model whose top level repeats a count that is out of date.
    vision = {"n_layer": 9, "text_config": {"num_layers": 2, "layer_types": list("pq")}}
    config, notes = output_config(donor, layers=[(donor, 0), (draft, 3), (vision, 1)])
    assert config["layer_types"] == list("azq")
    assert messages(notes, warning=True) == []


def test_flags_are_not_layer_numbers():
    donor = {"num_hidden_layers": 2, "no_rope_layers": [0, 1], "mlp_only_layers": [0, 1]}
    config, _ = output_config(donor, layers=twice(donor, (0, 2), (1, 2)))
    assert (config["no_rope_layers"], config["mlp_only_layers"]) == ([0, 1, 1], [0, 1, 2])


def test_a_source_may_have_another_rhythm():
    donor, other = ({"num_hidden_layers": 6, "full_attention_interval": n} for n in (3, 2))
    _, notes = output_config(donor, layers=[*twice(donor, (0, 3)), *twice(other, (3, 6))])
    assert [note.key for note in notes if note.warning] == ["full_attention_interval"]


def test_a_list_of_every_layer_number_is_still_a_list_of_numbers():
    donor = {"num_hidden_layers": 3, "moe_layers": [0, 1, 2]}
    assert output_config(donor, layers=twice(donor, (1, 3), (1, 3)))[0]["moe_layers"] == [0, 1, 2, 3]


def test_a_cycle_of_kinds_is_written_out_only_where_it_breaks():
    donor = {"num_hidden_layers": 6, "block_types": ["r", "r", "a"]}
    assert output_config(donor, layers=twice(donor, (0, 6), (3, 6)))[0]["block_types"] == ["r", "r", "a"]
    config, _ = output_config(donor, layers=twice(donor, (0, 2), (1, 3)))
    assert config["block_types"] == ["r", "r", "r", "a"]


RHYTHMS = [
    # (settings, ranges, keys warned of)
    ({"sliding_window_pattern": 3}, ((0, 6), (3, 6)), []),
    ({"sliding_window_pattern": 3}, ((0, 4), (2, 6)), ["sliding_window_pattern"]),
    ({"sliding_window_pattern": 3, "layer_types": list("sssfss")}, ((0, 4), (2, 6)), []),
    ({"sliding_window_pattern": "LLG"}, ((0, 4), (2, 6)), ["sliding_window_pattern"]),
    ({"sliding_window_pattern": 1}, ((0, 4), (2, 6)), []),
    ({"full_attention_interval": 4}, ((1, 6),), ["full_attention_interval"]),
    ({"attn_layer_period": 3, "attn_layer_offset": 1, "expert_layer_period": 2}, ((0, 6), (0, 6)), []),
    (
        {"attn_layer_period": 3, "attn_layer_offset": 1, "expert_layer_period": 2},
        ((0, 3), (0, 6)),
        ["expert_layer_period"],
    ),
    # Layers 4 and 5 of 6 stand where 5 and 4 would, and are plain by the offset in either place.
    ({"attn_layer_period": 6, "attn_layer_offset": 1}, ((0, 4), (5, 6)), []),
    ({"decoder_sparse_step": 2, "layer_types": list("aaaaaa")}, ((1, 6),), ["decoder_sparse_step"]),
    ({"decoder_sparse_step": 1}, ((1, 6),), []),
    ({"interleave_moe_layer_step": 2, "moe_layers": [1, 3, 5]}, ((1, 6),), []),
    ({"no_rope_layer_interval": 4, "layer_types": list("aaaaaa")}, ((1, 6),), ["no_rope_layer_interval"]),
    ({"time_step_floor": 0.1, "max_position_embeddings": 7, "rope_interleave": True}, ((1, 6),), []),
]


@pytest.mark.parametrize(("settings", "ranges", "keys"), RHYTHMS)
def test_a_rhythm_that_breaks_is_told(settings, ranges, keys):
    donor = {"num_hidden_layers": 6} | settings
    config, notes = output_config(donor, layers=twice(donor, *ranges))
    assert [note.key for note in notes if note.warning] == keys
    assert all(key in str(note) for key, note in zip(keys, [n for n in notes if n.warning], strict=True))
    assert [config[key] for key in keys] == [settings[key] for key in keys]


def test_a_bound_counts_the_leading_layers():
    donor = {"num_hidden_layers": 4, "first_k_dense_replace": 1, "num_kv_shared_layers": 1}
    config, notes = output_config(donor, layers=twice(donor, (0, 1), (0, 3), (3, 4)))
    assert (config["first_k_dense_replace"], config["num_kv_shared_layers"]) == (2, 1)
    config, notes = output_config(donor, layers=twice(donor, (1, 4), (0, 2)))
    assert config["first_k_dense_replace"] == 0
    assert [note.key for note in notes if note.warning] == ["first_k_dense_replace", "num_kv_shared_layers"]
    config, notes = output_config(donor | {"num_kv_shared_layers": 0}, layers=twice(donor, (1, 4)))
    assert config["num_kv_shared_layers"] == 1, "by its source's word, the last layer shares"


def test_a_bound_that_nothing_heeds_is_let_be():
    donor = {"num_hidden_layers": 4, "max_window_layers": 3, "use_sliding_window": False}
    config, notes = output_config(donor, layers=twice(donor, (0, 4), (0, 4)))
    assert config == donor | {"num_hidden_layers": 8}
    assert messages(notes, warning=True) == []
    donor = {"num_hidden_layers": 4, "max_window_layers": 70}
    assert output_config(donor, layers=twice(donor, (0, 4), (0, 4)))[0]["max_window_layers"] == 70


def test_layers_that_predict_further_tokens_are_counted_apart():
    donor = {"num_hidden_layers": 3, "num_nextn_predict_layers": 1, "mlp_layer_types": ["d", "s", "s"]}
    config, notes = output_config(donor, layers=twice(donor, (0, 3), (1, 4)), stack_length=4)
    assert config == {"num_hidden_layers": 5, "num_nextn_predict_layers": 1, "mlp_layer_types": list("dssss")}
    assert messages(notes, warning=True) == []
    config, notes = output_config(donor, layers=twice(donor, (0, 3)), stack_length=4)
    assert (config["num_hidden_layers"], config["num_nextn_predict_layers"]) == (3, 0)
    _, notes = output_config(donor, layers=twice(donor, (0, 4), (1, 2)), stack_length=4)
    assert "followed by ordinary layers" in messages(notes, warning=True)[0]


def test_a_count_that_no_key_states_is_told():
    donor = {"num_hidden_layers": 12}
    config, notes = output_config(donor, layers=twice(donor, (0, 1)), stack_length=1)
    assert config == donor
    assert messages(notes, warning=True) == ["no key of the config states 1 layers, so none was set to 1"]


def test_the_number_of_layers_stays_where_it_is_another_stacks():
    donor = {"num_layers": 5, "text_config": {"num_hidden_layers": 3}, "vision_config": {"depth": 3}}
    config, _ = output_config(donor, layers=twice(donor, (0, 2)), stack_length=3)
    assert config == {"num_layers": 5, "text_config": {"num_hidden_layers": 2}, "vision_config": {"depth": 3}}


# ── element type, tokens, ties ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"torch_dtype": "float16", "z": 1}, {"torch_dtype": "bfloat16", "z": 1}),
        ({"dtype": "float32"}, {"dtype": "bfloat16"}),
        ({"dtype": "float32", "torch_dtype": "float32"}, {"dtype": "bfloat16", "torch_dtype": "bfloat16"}),
        ({"dtype": None}, {"dtype": "bfloat16"}),
        ({"z": 1}, {"z": 1, "torch_dtype": "bfloat16"}),
        (
            {"text_config": {"torch_dtype": "float16"}, "vision_config": {"dtype": None}},
            {"text_config": {"torch_dtype": "bfloat16"}, "vision_config": {"dtype": None}, "torch_dtype": "bfloat16"},
        ),
        (
            {"dtype": "float16", "quantization_config": {"dtype": "float16"}, "a": {"dtype": "fast"}},
            {"dtype": "bfloat16", "quantization_config": {"dtype": "float16"}, "a": {"dtype": "fast"}},
        ),
    ],
)
def test_the_element_type(before, after):
    config, _ = output_config(before, dtype="torch.bfloat16")
    assert config == after
    assert list(config) == list(after)


def test_the_number_of_tokens():
    nested = {"vocab_size": 97, "text_config": {"vocab_size": 97}, "audio_config": {"vocab_size": 9}}
    config, notes = output_config(nested, vocab_size=99)
    assert config == {"vocab_size": 99, "text_config": {"vocab_size": 99}, "audio_config": {"vocab_size": 9}}
    assert messages(notes) == ["vocab_size: 97 -> 99", "text_config.vocab_size: 97 -> 99"]
    assert output_config({"text_config": {}}, vocab_size=9)[0] == {"text_config": {"vocab_size": 9}}
    assert output_config({}, vocab_size=9)[0] == {"vocab_size": 9}


def test_the_tie():
    nested = {"text_config": {"tie_word_embeddings": True, "a": 1}}
    config, notes = output_config(nested, tied=False)
    assert config == {"text_config": {"tie_word_embeddings": False, "a": 1}, "tie_word_embeddings": False}
    assert messages(notes) == ["tie_word_embeddings: added, False", "text_config.tie_word_embeddings: True -> False"]
    assert output_config({"tie_word_embeddings": True}, tied=True) == ({"tie_word_embeddings": True}, ())


def test_the_model_type_is_added_only_where_there_is_none():
    assert output_config({"a": 1}, model_type="llama")[0] == {"a": 1, "model_type": "llama"}
    assert output_config({"model_type": "x"}, model_type="llama") == ({"model_type": "x"}, ())


def test_quantization_is_dropped_only_when_told():
    donor = {"quantization_config": {"bits": 4}, "a": 1}
    assert output_config(donor, dtype=None)[0] == donor
    config, notes = output_config(donor, drop_quantization=True)
    assert config == {"a": 1}
    assert [note.key for note in notes] == ["quantization_config"]
    assert output_config({"a": 1}, drop_quantization=True) == ({"a": 1}, ())
