"""Nothing of a real model is lost unsaid, whatever it is merged with. Each test names the users' pain that it stands for."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import plait

MEAN = "models: [{{model: {0}}}, {{model: {1}}}]\nmerge_method: linear\nparameters: {{weight: 1}}\n"


def edited(folder, out, change, **config):
    """Copy a model with its arrays changed, and its config where that is said."""
    shutil.copytree(folder, out)
    arrays = load_file(out / "model.safetensors")
    save_file(change(arrays) or arrays, out / "model.safetensors", metadata={"format": "pt"})
    written = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(written | config))
    return out


def with_predicting_head(arrays):
    arrays["mtp.fc.weight"] = np.full((4, 4), 0.5, np.float32)


@pytest.mark.parametrize("who", ["both", "first", "second"])
def test_pain_1_heads_that_predict_further_tokens_are_not_lost(who, made, recipe, clean, tmp_path):
    family = made("qwen3")
    a = edited(family.a, tmp_path / "with-a", with_predicting_head) if who != "second" else family.a
    b = edited(family.b, tmp_path / "with-b", with_predicting_head) if who != "first" else family.b
    path = recipe(MEAN.format(a, b))
    told = "\n".join(map(str, plait.plan(path).warnings))
    out = plait.merge(path, tmp_path / "out", threads=1).path
    assert np.array_equal(plait.load(out)["mtp.fc.weight"], np.full((4, 4), 0.5, np.float32))
    assert ("1 tensor copied" in told) == (who != "both")
    _, info = family.load(out)
    assert set(info["unexpected_keys"]) <= {"mtp.fc.weight"}
    assert not info["missing_keys"]


@pytest.mark.parametrize("first", ["biased", "plain"])
def test_pain_1_biases_of_one_model_are_kept_or_named(first, made, recipe, clean, tmp_path):
    biased = made("llama")
    plain = made("llama", "llama-plain", attention_bias=False, mlp_bias=False)
    pair = (biased, plain) if first == "biased" else (plain, biased)
    path = recipe(MEAN.format(pair[0].a, pair[1].b))
    plan = plait.plan(path)
    out = plait.merge(path, tmp_path / "out", threads=1).path
    _, info = pair[0].load(out)
    clean(info)
    biases = {name for name in plait.load(biased.a) if name.endswith("bias")}
    assert len(biases) == 28
    if first == "biased":
        assert biases <= plait.load(out).keys()
        assert plan.dropped == ()
    else:
        assert {drop.name for drop in plan.dropped} == biases
        reasons = {drop.reason.partition(", ")[2] for drop in plan.dropped}
        assert reasons == {"whose config says attention_bias: false"}


def nested(arrays):
    """How older versions named what newer ones call model.language_model, model.vision_tower."""
    return {
        name.replace("language_model.model.", "model.language_model.")
        .replace("language_model.lm_head", "lm_head")
        .replace("vision_tower.", "model.vision_tower.", 1)
        .replace("multi_modal_projector.", "model.multi_modal_projector.", 1): value
        for name, value in arrays.items()
    }


@pytest.mark.parametrize("first", ["old", "new"])
def test_pain_10_two_vision_models_with_other_prefixes_are_merged_whole(first, made, recipe, clean, tmp_path):
    family = made("llava")
    old = {"a": family.a, "b": family.b}
    new = {name: edited(folder, tmp_path / f"new-{name}", nested) for name, folder in old.items()}
    assert not plait.load(new["a"]).keys() & plait.load(old["a"]).keys()
    pair = (old["a"], new["b"]) if first == "old" else (new["a"], old["b"])
    path = recipe(MEAN.format(*pair))
    plan = plait.plan(path)
    assert (plan.dropped, plan.warnings) == ((), ())
    assert {len(step.sources) for step in plan.steps} == {2}
    out = plait.merge(path, tmp_path / "out", threads=1).path
    assert plait.load(out).keys() == plait.load(pair[0]).keys()
    same = plait.merge(recipe(MEAN.format(old["a"], old["b"])), tmp_path / "plain", threads=1).path
    wanted = plait.load(same)
    got = plait.load(out)
    for name, value in (wanted if first == "old" else nested(wanted)).items():
        np.testing.assert_array_equal(got[name], value)
    _, info = family.load(out)
    clean(info)


def test_pain_5_what_is_copied_from_one_layout_is_not_missed_in_the_other(made, recipe, clean, tmp_path):
    family = made("llava")
    new = edited(family.b, tmp_path / "new-b", nested)
    rules = f"tensors: [{{regex: norm, copy_from: {family.a}}}]\n"
    plan = plait.plan(recipe(MEAN.format(family.a, new) + rules))
    assert {drop.name.partition(".")[0] for drop in plan.dropped} == {"model"}
    out = plait.merge(recipe(MEAN.format(family.a, new) + rules), tmp_path / "out", threads=1).path
    _, info = family.load(out)
    clean(info)


def test_pain_1_a_part_that_is_lost_is_missed_whatever_the_layout(made, recipe, tmp_path):
    family = made("llava")
    lost = "tensors: [{match: 'language_model.model.layers.2.mlp.*', drop: true}]\n"
    assert "language_model.model.layers.2.mlp.up_proj.weight" in plait.load(family.a)
    with pytest.raises(plait.MergeError, match=r"expects 3 tensors that are not there, such as model.language_model"):
        plait.merge(recipe(MEAN.format(family.a, family.b) + lost), tmp_path / "out", threads=1)


def test_pain_10_a_text_model_goes_into_a_vision_model_and_its_tower_stays_as_it_is(made, recipe, clean, tmp_path):
    vision, text = made("llava"), made("llama", "llama-for-llava", **TEXT_OF_LLAVA)
    path = recipe(
        f"models: [{{model: {text.a}}}]\nmerge_method: task_arithmetic\nbase_model: {vision.base}\nparameters: {{weight: 1}}\n"
    )
    out = plait.merge(path, tmp_path / "out", threads=1).path
    before, after, donor = plait.load(vision.base), plait.load(out), plait.load(text.a)
    assert before.keys() == after.keys()
    towers = {name for name in before if "language_model" not in name and name != "lm_head.weight"}
    assert len(towers) > 20
    assert all(before[name].tobytes() == after[name].tobytes() for name in towers)
    inner = {name: next(end for end in donor if name.endswith(end)) for name in before.keys() - towers}
    assert set(inner.values()) == donor.keys()
    for name, end in inner.items():
        np.testing.assert_allclose(after[name], donor[end], rtol=1e-5, atol=1e-7)
    _, info = vision.load(out)
    clean(info)


def test_pain_10_a_vision_model_goes_into_a_text_model_and_its_tower_is_named(made, recipe, clean, tmp_path):
    vision, text = made("llava"), made("llama", "llama-for-llava", **TEXT_OF_LLAVA)
    path = recipe(MEAN.format(text.a, vision.a))
    plan = plait.plan(path)
    out = plait.merge(path, tmp_path / "out", threads=1).path
    _, info = text.load(out)
    clean(info)
    assert {len(step.sources) for step in plan.steps} == {2}
    towers = {name for name in plait.load(vision.a) if "language_model" not in name and name != "lm_head.weight"}
    assert {drop.name for drop in plan.dropped} == towers
    (reason,) = {drop.reason for drop in plan.dropped}
    assert "which is a LlamaForCausalLM, and this is a LlavaForConditionalGeneration's" in reason


def test_pain_5_task_heads_of_other_sizes_are_refused_by_name_before_any_work(made, recipe, clean, tmp_path):
    three = made("bert", "bert-3", kind="BertForSequenceClassification", num_labels=3)
    five = made("bert", "bert-5", kind="BertForSequenceClassification", num_labels=5)
    with pytest.raises(plait.RecipeError) as caught:
        plait.plan(recipe(MEAN.format(three.a, five.b)))
    (fault,) = caught.value.faults
    assert "classifier.weight is [3, 16] in " in str(fault)
    assert "classifier.bias is [3] in " in str(fault)
    assert "Heads for different classes cannot be merged: copy these tensors from one model" in str(fault)
    rules = f"tensors: [{{match: 'classifier.*', copy_from: {three.a}}}]\n"
    out = plait.merge(recipe(MEAN.format(three.a, five.b) + rules), tmp_path / "out", threads=1).path
    _, info = three.load(out)
    clean(info)


def test_pain_1_the_head_of_another_task_is_dropped_by_name(made, recipe, clean, tmp_path):
    masked = made("bert")
    classes = made("bert", "bert-3", kind="BertForSequenceClassification", num_labels=3)
    path = recipe(MEAN.format(masked.a, classes.b))
    plan = plait.plan(path)
    out = plait.merge(path, tmp_path / "out", threads=1).path
    _, info = masked.load(out)
    clean(info)
    names = {drop.name for drop in plan.dropped}
    assert {"classifier.weight", "classifier.bias"} <= names
    reason = next(drop.reason for drop in plan.dropped if drop.name == "classifier.weight")
    assert reason.endswith("which is a BertForMaskedLM, and this is a BertForSequenceClassification's")


def uneven(arrays):
    """A model found by search: each layer has a feed-forward part of its own width, and one has none."""
    for name in list(arrays):
        if ".1.mlp." in name:
            arrays[name] = np.ascontiguousarray(arrays[name][:, :6] if "down" in name else arrays[name][:10])
            if "down" not in name:
                arrays[name] = np.ascontiguousarray(arrays[name][:6])
        if ".2.mlp." in name or ".2.post_attention" in name:
            del arrays[name]


def test_pain_2_layers_of_different_make_are_each_merged_with_their_counterpart(made, recipe, tmp_path):
    family = made("mistral")
    a, b = (edited(folder, tmp_path / f"nas-{folder.name}", uneven) for folder in (family.a, family.b))
    path = recipe(MEAN.format(a, b))
    plan = plait.plan(path)
    assert (plan.dropped, plan.warnings) == ((), ())
    # Its class would not load it: the config cannot say what this family does not know.
    out = plait.load(plait.merge(path, tmp_path / "out", threads=1, verify=False).path)
    x, y = plait.load(a), plait.load(b)
    assert out.keys() == x.keys()
    assert out["model.layers.1.mlp.down_proj.weight"].shape == (16, 6)
    for name, value in out.items():
        np.testing.assert_allclose(value, (x[name] + y[name]) / 2, rtol=1e-6, atol=1e-8)


TEXT_OF_LLAVA = {"attention_bias": False, "mlp_bias": False}
