from __future__ import annotations

import pytest

from plait.structure import LayerName, Stack, find_stacks, layer_counts, locate, main_stacks, relocate

# family -> the stacks that slices may mean: (prefix, length)
MAIN = {
    "llama": [("model.layers", 3)],
    "gpt2": [("transformer.h", 3)],
    "gpt2-headless": [("h", 3)],
    "gpt-neox": [("gpt_neox.layers", 3)],
    "bert": [("bert.encoder.layer", 3)],
    "t5": [("encoder.block", 3), ("decoder.block", 3)],
    "mamba": [("backbone.layers", 3)],
    "gemma3": [("model.layers", 6)],
    "gemma3-vision": [("model.language_model.layers", 6)],
    "qwen3-moe": [("model.layers", 3)],
    "phi3": [("model.layers", 3)],
    "olmo2": [("model.layers", 3)],
    "albert": [],
    "vit": [("vit.layers", 3)],
    "whisper": [("model.encoder.layers", 2), ("model.decoder.layers", 3)],
    "wav2vec2": [("wav2vec2.encoder.layers", 7)],
}


@pytest.mark.parametrize("family", MAIN)
def test_the_main_stack_of_real_models(tiny, family):
    shapes, config = tiny(family)
    found = main_stacks(find_stacks(shapes), config)
    assert [(stack.prefix, stack.length) for stack in found] == MAIN[family]
    assert all(stack.indices == tuple(range(stack.length)) for stack in found)


def test_the_first_number_is_the_layer():
    assert locate("encoder.block.2.layer.1.DenseReluDense.wi.weight") == LayerName(
        "encoder.block", 2, "layer.1.DenseReluDense.wi.weight"
    )
    assert locate("0.weight") == LayerName("", 0, "weight")
    assert locate("scales.3") == LayerName("scales", 3, "")
    assert locate("model.conv1d.weight") is None
    assert locate("blocks.007.weight") is None, "a number that would not be written so again is no index"


def test_a_name_moves_to_another_layer_and_back():
    name = "model.layers.1.mlp.experts.1.up_proj.weight"
    assert relocate(name, 12) == "model.layers.12.mlp.experts.1.up_proj.weight"
    assert relocate(relocate(name, 12), 1) == name
    assert relocate("0.weight", 4) == "4.weight"
    with pytest.raises(ValueError, match="is in no layer"):
        relocate("lm_head.weight", 0)
    with pytest.raises(ValueError, match="can't be moved to layer -1"):
        relocate(name, -1)


def test_gaps_are_recorded():
    (stack,) = find_stacks(["c.0.weight", "c.3.weight", "c.3.bias"])
    assert stack == Stack("c", 4, (0, 3), 3)
    assert stack.gaps == (1, 2)


LAYERS = [f"layers.{i}.{part}" for i in range(3) for part in ("norm.weight", "attn.weight", "up.weight", "down.weight")]


def test_a_sequential_classifier_as_long_as_the_model_is_no_stack_of_layers():
    stacks = find_stacks([*LAYERS, "classifier.0.weight", "classifier.0.bias", "classifier.2.weight"])
    assert [s.prefix for s in main_stacks(stacks, {"num_hidden_layers": 3})] == ["layers"]


def test_a_stack_that_no_count_bears_out_does_not_win():
    assert main_stacks(find_stacks(LAYERS), {"num_hidden_layers": 12}) == ()
    assert [s.prefix for s in main_stacks(find_stacks(LAYERS), None)] == ["layers"]
    assert main_stacks((), None) == ()


def test_layers_that_predict_further_tokens_are_numbered_after_the_last():
    config = {"num_hidden_layers": 2, "num_nextn_predict_layers": 1}
    assert [s.length for s in main_stacks(find_stacks(LAYERS), config)] == [3]


def test_the_count_may_be_nested_or_only_a_list():
    assert [(c.path, c.count) for c in layer_counts({"llm_config": {"n_layer": 3}, "vision_config": {"depth": 5}})] == [
        (("llm_config",), 3)
    ]
    assert [(c.key, c.count, c.counts) for c in layer_counts({"hybrid_override_pattern": "M-M*"})] == [
        ("hybrid_override_pattern", 4, False)
    ]
    assert [c.count for c in layer_counts({"num_hidden_layers": 3, "layer_types": ["a"] * 5})] == [3]
    assert [c.count for c in layer_counts({"vision_config": {"depth": 5}})] == [5]
    assert layer_counts({"num_hidden_layers": None, "num_layers": True}) == ()
