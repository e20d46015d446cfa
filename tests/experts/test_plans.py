"""What a plan says of experts in several layouts, and what it refuses."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import plait
from plait.errors import RecipeError

LINEAR = "merge_method: linear, parameters: {weight: 0.5}"


def copy_of(folder, out, change, **config):
    """Write a model again with `change` made to its arrays (by name), and its config."""
    out.mkdir()
    save_file(change(load_file(folder / "model.safetensors")), out / "model.safetensors", metadata={"format": "pt"})
    known = json.loads((folder / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(known | config))
    return out


def refused(path, text):
    with pytest.raises(RecipeError) as raised:
        plait.plan(path)
    assert text in str(raised.value)
    return str(raised.value)


def test_the_plan_says_what_is_read_as_what(made, recipe):
    family = made("mixtral")
    a, b = family.folders["a", "each"], family.folders["b", "stacked"]
    plan = plait.plan(recipe(f"{{{LINEAR}, base_model: {a}, models: [{{model: {a}}}, {{model: {b}}}]}}"))
    assert (
        f"{b}: 4 experts in each of 2 layers, stored as experts.down_proj, experts.gate_up_proj (gate above up), are "
        f"read as experts.*.w1, experts.*.w2, experts.*.w3, the layout of {a}." in plan.notes
    )
    assert not plan.warnings
    assert not plan.dropped
    assert {step.action for step in plan.steps} == {"merge"}


def test_nothing_is_said_or_done_where_layouts_agree(made, recipe):
    family = made("mixtral")
    a, b = family.folders["a", "stacked"], family.folders["b", "stacked"]
    plan = plait.plan(recipe(f"{{{LINEAR}, base_model: {a}, models: [{{model: {a}}}, {{model: {b}}}]}}"))
    assert not plan.notes
    assert all(source.tensor.derived is None for step in plan.steps for source in step.inputs)


@pytest.mark.parametrize("layout", ["each", "stacked"])
def test_other_numbers_of_experts_are_refused_with_both(made, recipe, tmp_path, layout):
    family = made("qwen3_moe")

    def fewer(arrays):
        kept = {name: array for name, array in arrays.items() if ".experts.3." not in name}
        return {
            n: v[:3].copy() if "experts.gate_up" in n or "experts.down" in n or ".gate.w" in n else v
            for n, v in kept.items()
        }

    a, b = family.folders["a", "each"], copy_of(family.folders["b", layout], tmp_path / "b", fewer, num_experts=3)
    text = refused(
        recipe(f"{{{LINEAR}, base_model: {a}, models: [{{model: {a}}}, {{model: {b}}}]}}"),
        f"{b} has 3 experts in model.layers.0.mlp, {a} has 4 in model.layers.0.mlp.",
    )
    assert "Models with different numbers of experts cannot be merged." in text


def test_copying_other_tensors_from_a_model_with_fewer_experts_is_no_fault(made, recipe, tmp_path):
    family = made("qwen3_moe")
    a, b = family.folders["a", "each"], family.folders["b", "stacked"]
    c = copy_of(
        b, tmp_path / "c", lambda arrays: {n: v[:3].copy() if ".experts." in n else v for n, v in arrays.items()}
    )
    rule = f"tensors: [{{match: 'lm_head.*', copy_from: {c}}}]"
    plan = plait.plan(recipe(f"{{{LINEAR}, base_model: {a}, models: [{{model: {a}}}, {{model: {b}}}], {rule}}}"))
    assert any(step.name == "lm_head.weight" and step.action == "copy" for step in plan.steps)


def test_a_layout_that_cannot_be_told_is_refused(made, recipe, tmp_path):
    family = made("gpt_oss")
    a = copy_of(family.folders["a", "each"], tmp_path / "a", lambda arrays: arrays, model_type="unheard_of")
    b = copy_of(family.folders["b", "stacked"], tmp_path / "b", lambda arrays: arrays, model_type="unheard_of")
    text = refused(
        recipe(f"{{{LINEAR}, base_model: {a}, models: [{{model: {a}}}, {{model: {b}}}]}}"),
        "whether gate and up lie in model.layers.0.mlp.experts.gate_up_proj one above the other or in turns cannot be told",
    )
    assert "Save one of the models in the other's layout first." in text


def test_names_with_another_prefix_and_another_layout(made, recipe, tmp_path):
    family = made("deepseek_v3")
    a = family.folders["a", "each"]
    b = copy_of(
        family.folders["a", "stacked"],
        tmp_path / "b",
        lambda arrays: {name.replace("model.", "model.language_model."): array for name, array in arrays.items()},
    )
    plait.merge(recipe(f"{{{LINEAR}, base_model: {a}, models: [{{model: {a}}}, {{model: {b}}}]}}"), tmp_path / "out")
    wanted, found = load_file(a / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert all(found[name].tobytes() == array.tobytes() for name, array in wanted.items())


def test_experts_of_a_vision_tower_are_no_counterpart_of_a_language_models(made, recipe, tmp_path):
    family = made("qwen3_moe")
    a = family.folders["a", "each"]

    def with_tower(arrays):
        tower = {n.replace("model.layers", "model.visual.layers"): v[:2] for n, v in arrays.items() if ".experts." in n}
        return arrays | {name: array.copy() for name, array in tower.items()}

    b = copy_of(family.folders["b", "stacked"], tmp_path / "b", with_tower)
    plan = plait.plan(recipe(f"{{{LINEAR}, base_model: {a}, models: [{{model: {a}}}, {{model: {b}}}]}}"))
    assert sum(step.action == "merge" for step in plan.steps) == len(load_file(a / "model.safetensors"))
    assert any("model.visual.layers.0.mlp.experts.down_proj" in str(warning) for warning in plan.warnings)


@pytest.mark.parametrize("layout", ["each", "stacked"])
def test_experts_of_another_width_are_refused(made, recipe, tmp_path, layout):
    family = made("qwen3_moe")
    a = family.folders["a", "each"]
    change = {"down_proj.weight": np.s_[:, :4], "gate_proj.weight": np.s_[:4], "up_proj.weight": np.s_[:4]}
    change |= {"experts.down_proj": np.s_[:, :, :4], "experts.gate_up_proj": np.s_[:, :8]}

    def narrower(arrays):
        ends = {name: next((cut for end, cut in change.items() if name.endswith(end)), ...) for name in arrays}
        return {name: array[ends[name]].copy() for name, array in arrays.items()}

    b = copy_of(family.folders["b", layout], tmp_path / "b", narrower)
    text = refused(
        recipe(f"{{{LINEAR}, base_model: {a}, models: [{{model: {a}}}, {{model: {b}}}]}}"), "shapes differ: "
    )
    assert f"experts.0.down_proj.weight is [16, 8] in {a}, [16, 4] in {b}" in text


def test_slices_across_layouts(made, recipe, tmp_path):
    family = made("mixtral")
    a, b = family.folders["a", "each"], family.folders["b", "stacked"]
    parts = [f"{{sources: [{{model: {model}, layer_range: [0, 2]}}]}}" for model in (a, b)]
    plait.merge(recipe(f"{{merge_method: passthrough, slices: [{', '.join(parts)}]}}"), tmp_path / "out")
    found, other = (load_file(one / "model.safetensors") for one in (tmp_path / "out", family.folders["b", "each"]))
    for name, array in other.items():
        if "layers" in name:
            assert (
                array.tobytes() == found[name.replace("layers.0", "layers.2").replace("layers.1", "layers.3")].tobytes()
            )


def test_what_another_document_makes_is_not_laid_out_anew(made, recipe):
    family = made("mixtral")
    a, b = family.folders["a", "each"], family.folders["b", "stacked"]
    first = f"name: soup\nmodels: [{{model: {b}}}]\nmerge_method: linear\nparameters: {{weight: 1}}\n---\n"
    second = f"models: [{{model: {a}}}, {{model: soup}}]\nmerge_method: linear\nparameters: {{weight: 1}}\n"
    refused(recipe(first + second), "it is made by an earlier document, whose experts cannot be laid out anew yet")


def test_a_router_under_another_name_in_the_block_is_found(made, recipe, tmp_path):
    family = made("gpt_oss")
    a = family.folders["a", "each"]
    b = copy_of(
        family.folders["a", "stacked"],
        tmp_path / "b",
        lambda arrays: {name.replace("router.weight", "router.linear.weight"): v for name, v in arrays.items()},
    )
    plan = plait.plan(recipe(f"{{{LINEAR}, base_model: {a}, models: [{{model: {a}}}, {{model: {b}}}]}}"))
    assert not plan.warnings
    assert all(step.action == "merge" for step in plan.steps)


def test_a_transposed_base_that_transformers_turns_on_loading(recipe, tmp_path):
    """Qwen3-VL-MoE's published files are transposed, what transformers 5 saves is not."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    text = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "head_dim": 8}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "num_experts": 4, "moe_intermediate_size": 12}
    text |= {
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4},
        "pad_token_id": 0,
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4}
    vision |= {"out_hidden_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    config = transformers.Qwen3VLMoeConfig(
        text_config=text, vision_config=vision, image_token_id=30, video_token_id=31, tie_word_embeddings=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = transformers.Qwen3VLMoeForConditionalGeneration
        kind(config).save_pretrained(tmp_path / "new", save_original_format=False)
    base = copy_of(
        tmp_path / "new",
        tmp_path / "base",
        lambda arrays: {n: v.swapaxes(1, 2).copy() if ".experts." in n else v for n, v in arrays.items()},
    )
    path = recipe(f"{{{LINEAR}, base_model: {base}, models: [{{model: {base}}}, {{model: {tmp_path / 'new'}}}]}}")
    assert any("(transposed, gate above up)" in note for note in plait.plan(path).notes)
    plait.merge(path, tmp_path / "out")
    wanted, found = (load_file(one / "model.safetensors") for one in (base, tmp_path / "out"))
    assert all(found[name].tobytes() == array.tobytes() for name, array in wanted.items())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logits = [
            kind.from_pretrained(one)(torch.arange(3, 12)[None]).logits for one in (tmp_path / "out", tmp_path / "new")
        ]
    assert torch.equal(*logits)
