"""Layers stacked, left out and put in another order: the output loads whole, and its config says what it is."""

from __future__ import annotations

import json

import numpy as np
import pytest

import plait


def stacked(family, spans, recipe, tmp_path):
    """Join layer ranges of the family's models `a` and `b`, in turn."""
    folders = (family.a, family.b)
    lines = [
        f"  - sources: [{{model: {folders[i % 2]}, layer_range: [{low}, {high}]}}]"
        for i, (low, high) in enumerate(spans)
    ]
    path = recipe("slices:\n" + "\n".join(lines) + "\nmerge_method: passthrough\n")
    return plait.merge(path, tmp_path / "out", threads=1).path


def layers_of(folder):
    """Layer -> the tensors' bytes by the rest of their names."""
    found: dict[int, dict[str, bytes]] = {}
    for name, array in plait.load(folder).items():
        before, mark, rest = next(
            (name.partition(f"{stem}.") for stem in ("layers", "h") if f"{stem}." in name), (name, "", "")
        )
        number, _, rest = rest.partition(".")
        if mark and number.isdigit():
            found.setdefault(int(number), {})[rest] = array.tobytes()
        del before
    return found


@pytest.mark.parametrize("spans", [((0, 3), (1, 4)), ((0, 2), (3, 4))], ids=["deeper", "shallower"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma3", "gpt2", "qwen3_moe"])
def test_a_stack_of_other_depth_loads_whole(name, spans, made, recipe, clean, tmp_path):
    family = made(name)
    out = stacked(family, spans, recipe, tmp_path)
    _, info = family.load(out)
    clean(info)
    got, sources = layers_of(out), (layers_of(family.a), layers_of(family.b))
    wanted = [sources[i % 2][layer] for i, (low, high) in enumerate(spans) for layer in range(low, high)]
    assert [got[i] for i in sorted(got)] == wanted
    config = json.loads((out / "config.json").read_text())
    assert config["n_layer" if name == "gpt2" else "num_hidden_layers"] == len(wanted)
    if "layer_types" in config:
        theirs = json.loads((family.a / "config.json").read_text())["layer_types"]
        assert config["layer_types"] == [theirs[i] for low, high in spans for i in range(low, high)]


def test_kinds_of_layers_follow_a_new_order(made, recipe, clean, tmp_path):
    family = made("gemma3")
    out = stacked(family, ((2, 3), (0, 2), (3, 4)), recipe, tmp_path)
    kinds = json.loads((out / "config.json").read_text())["layer_types"]
    assert kinds == ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"]
    model, info = family.load(out)
    clean(info)
    assert [layer.self_attn.is_sliding for layer in model.model.layers] == [False, True, True, True]


def test_what_lies_before_the_layers_is_the_first_models_and_after_them_the_lasts(made, recipe, tmp_path):
    family = made("llama")
    out = plait.load(stacked(family, ((0, 2), (2, 4)), recipe, tmp_path))
    a, b = plait.load(family.a), plait.load(family.b)
    assert np.array_equal(out["model.embed_tokens.weight"], a["model.embed_tokens.weight"])
    assert np.array_equal(out["model.norm.weight"], b["model.norm.weight"])
    assert np.array_equal(out["lm_head.weight"], b["lm_head.weight"])


def test_tied_first_and_untied_last_give_the_lasts_head(made, recipe, clean, tmp_path):
    tied, untied = made("qwen3"), made("qwen3", "qwen3-untied", tie_word_embeddings=False)
    path = recipe(
        f"slices:\n- sources: [{{model: {tied.a}, layer_range: [0, 2]}}]\n"
        f"- sources: [{{model: {untied.b}, layer_range: [2, 4]}}]\nmerge_method: passthrough\n"
    )
    out = plait.merge(path, tmp_path / "out", threads=1).path
    _, info = untied.load(out)
    clean(info)
    assert np.array_equal(plait.load(out)["lm_head.weight"], plait.load(untied.b)["lm_head.weight"])
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False


def test_merging_layers_of_two_kinds_is_warned_of(made, recipe):
    family = made("gemma3")
    path = recipe(
        f"slices:\n- sources:\n  - {{model: {family.a}, layer_range: [0, 3]}}\n  - {{model: {family.b}, layer_range: [1, 4]}}\n"
        "merge_method: linear\nparameters: {weight: 1}\n"
    )
    told = [str(warning) for warning in plait.plan(path).warnings]
    assert any("layer 1 of" in text and "(full_attention)" in text for text in told)


@pytest.mark.parametrize("name", ["t5"])
def test_two_stacks_of_equal_length_are_not_guessed_at(name, made, recipe):
    family = made(name)
    path = recipe(f"slices:\n- sources: [{{model: {family.a}, layer_range: [0, 2]}}]\nmerge_method: passthrough\n")
    with pytest.raises(plait.RecipeError, match=r"decoder.block \(3 layers\).*encoder.block \(3 layers\)"):
        plait.plan(path)
