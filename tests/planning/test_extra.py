"""Tensors that only some models have. Users' pain: a merge "succeeds", and biases, heads or whole parts are gone."""

from __future__ import annotations

import numpy as np
import pytest

import plait

LINEAR = "models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 1}\n"
CONFIG = {"architectures": ["XForCausalLM"], "num_hidden_layers": 2, "vocab_size": 5, "tie_word_embeddings": False}


def arrays(**more):
    names = [f"model.layers.{i}.{part}.weight" for i in range(2) for part in ("self_attn.q_proj", "mlp.w")]
    shared = {name: np.ones(2, np.float32) for name in (*names, "model.norm.weight")}
    tables = {name: np.ones((5, 2), np.float32) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    return shared | tables | {name.replace("__", "."): np.ones(3, np.float32) for name in more}


@pytest.fixture
def pair(write_model, recipe):
    """Write a and b, where b has one tensor more, and plan their mean: b's tensor's step and drop, and the warnings."""

    def plan(name, *, a=None, b=None, text=LINEAR):
        write_model("a", arrays(), None if a == {} else CONFIG | (a or {}))
        write_model("b", arrays(**{name: 1}), None if b == {} else CONFIG | (b or {}))
        made = plait.plan(recipe(text))
        step = next((step for step in made.steps if step.name == name), None)
        drop = next((drop for drop in made.dropped if drop.name == name), None)
        assert (step is None) != (drop is None)
        assert len(made.dropped) == (drop is not None)
        return step, drop, "\n".join(str(warning) for warning in made.warnings)

    return plan


@pytest.mark.parametrize("name", ["mtp.fc.weight", "mtp.layers.0.w.weight", "model.layers.1.self_attn.q_proj.bias"])
def test_what_only_the_second_has_is_copied_from_it_and_told(name, pair):
    step, _, told = pair(name)
    assert (step.action, step.sources[0].model, step.reason) == ("copy", 1, "not in a")
    assert f"1 tensor copied, not merged (not in a): {name}." in told


def test_the_first_that_has_it_gives_it_and_the_others_are_listed(write_model, recipe):
    for name, more in (("base", {}), ("a", {}), ("b", {"mtp.fc.weight": 1}), ("c", {"mtp.fc.weight": 1})):
        write_model(name, arrays(**more), CONFIG)
    text = (
        "models: [{model: a}, {model: b}, {model: c}]\nmerge_method: task_arithmetic\n"
        "base_model: base\nparameters: {weight: 1}\n"
    )
    plan = plait.plan(recipe(text))
    step = next(step for step in plan.steps if step.name == "mtp.fc.weight")
    assert [plan.models[source.model].reference for source in step.inputs] == ["b"]
    assert step.reason == "not in a, base"
    assert [(drop.model, drop.name) for drop in plan.dropped] == [("c", "mtp.fc.weight")]


def test_it_is_merged_where_only_the_donor_lacks_it(write_model, recipe):
    for name, more in (("base", {}), ("a", {"mtp.fc.weight": 1}), ("b", {"mtp.fc.weight": 1})):
        write_model(name, arrays(**more), CONFIG)
    text = "slices:\n- sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]\n"
    plan = plait.plan(recipe(text + "merge_method: linear\nparameters: {weight: 1}\nbase_model: base\n"))
    step = next(step for step in plan.steps if step.name == "mtp.fc.weight")
    assert (step.method, len(step.sources)) == ("linear", 2)


@pytest.mark.parametrize(
    ("rule", "copied"),
    [
        ("match: 'mtp.*', drop: true", False),
        ("match: 'mtp.*', copy_from: b", True),
        ("regex: 'mtp|norm', copy_from: a", True),  # what a has not is no fault of the rule
        ("match: 'mtp.*', merge_method: median", True),
    ],
)
def test_rules_speak_of_it_too(rule, copied, write_model, recipe):
    write_model("a", arrays(), CONFIG)
    write_model("b", arrays(**{"mtp.fc.weight": 1}), CONFIG)
    plan = plait.plan(recipe(LINEAR + f"tensors: [{{{rule}}}]\n"))
    found = {step.name: step.sources[0].model for step in plan.steps}
    assert found.get("mtp.fc.weight") == (1 if copied else None)
    assert ("mtp.fc.weight" in {drop.name for drop in plan.dropped}) != copied


def test_strict_refuses_it_by_name(faults, write_model):
    write_model("a", arrays(), CONFIG)
    write_model("b", arrays(**{"mtp.fc.weight": 1}), CONFIG)
    (told,) = faults(LINEAR + "strict: true\n")
    assert "strict: 1 tensor copied, not merged (not in a): mtp.fc.weight." in told
    assert faults(LINEAR + "strict: true\ntensors: [{match: 'mtp.*', drop: true}]\n") == []
    assert faults(LINEAR + "strict: true\ntensors: [{match: 'mtp.*', copy_from: b}]\n") == []


@pytest.mark.parametrize(
    ("name", "a", "b", "reason"),
    [
        (
            "score.weight",
            {},
            {"architectures": ["XForSequenceClassification"]},
            "which has no such head",
        ),
        (
            "score.weight",
            None,
            {"architectures": ["XForSequenceClassification"]},
            "which is a XForCausalLM, and this is a XForSequenceClassification's",
        ),
        (
            "visual.patch.weight",
            None,
            {"architectures": ["XForConditionalGeneration"]},
            "which is a XForCausalLM, and this is a XForConditionalGeneration's",
        ),
        (
            "model.layers.0.self_attn.q_proj.bias",
            {"attention_bias": False},
            {"attention_bias": True},
            "whose config says attention_bias: false",
        ),
        (
            "model.layers.0.self_attn.q_norm.weight",
            None,
            {"text_config": {"use_qk_norm": True}},
            "whose config does not say use_qk_norm: true",
        ),
        ("model.layers.2.mlp.w.weight", None, {"num_nextn_predict_layers": 1}, "which has 2 layers there"),
        (
            "model.layers.1.cross.weight",
            {"layer_types": ["x", "y"]},
            {"layer_types": ["x", "z"]},
            "whose layer there is of another kind",
        ),
    ],
)
def test_what_the_outputs_class_has_no_place_for_is_dropped_with_the_reason(name, a, b, reason, pair):
    _, drop, told = pair(name, a=a, b=b)
    assert drop.model == "b"
    assert drop.reason == f"the output follows a, {reason}"
    assert f"1 tensor of b dropped (the output follows a, {reason}): {name}." in told


def test_a_switch_that_both_have_on_is_no_reason(pair):
    on = {"attention_bias": True}
    step, _, _ = pair("model.layers.0.self_attn.q_proj.bias", a=on, b=on)
    assert step.action == "copy"


def test_kinds_that_agree_in_that_layer_are_no_reason(pair):
    step, _, _ = pair("model.layers.0.cross.weight", a={"layer_types": ["x", "y"]}, b={"layer_types": ["x", "z"]})
    assert step.action == "copy"


def test_a_layer_made_of_other_modules_gives_nothing(write_model, recipe):
    write_model("a", arrays(), CONFIG)
    other = arrays(**{"model.layers.1.mamba.in_proj.weight": 1})
    del other["model.layers.1.self_attn.q_proj.weight"]
    write_model("b", other, CONFIG)
    (drop,) = plait.plan(recipe(LINEAR)).dropped
    assert (drop.name, drop.reason) == (
        "model.layers.1.mamba.in_proj.weight",
        "the output follows a, whose layer there is of another kind",
    )


def test_layers_of_a_stack_keep_their_own_biases(write_model, recipe):
    write_model("a", arrays(), CONFIG | {"attention_bias": False})
    biases = {f"model.layers.{i}.self_attn.q_proj.bias": 1 for i in range(2)}
    write_model("b", arrays(**biases), CONFIG | {"attention_bias": True})
    parts = "".join(f"- sources: [{{model: {m}, layer_range: [{i}, {i + 1}]}}]\n" for i, m in enumerate("ab"))
    plan = plait.plan(recipe(f"slices:\n{parts}merge_method: passthrough\n"))
    assert [step.name for step in plan.steps if step.name.endswith("bias")] == ["model.layers.1.self_attn.q_proj.bias"]
    both = "- sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]\n"
    plan = plait.plan(recipe(f"slices:\n{both}merge_method: linear\nparameters: {{weight: 1}}\n"))
    assert {drop.reason for drop in plan.dropped} == {
        "its layer follows the first model of the slice, which has no such tensor"
    }
    assert {drop.name for drop in plan.dropped} == set(biases)


def test_modules_take_only_what_is_theirs(write_model, recipe):
    write_model("a", arrays(), CONFIG)
    write_model("b", arrays(**{"mtp.fc.weight": 1, "model.extra.weight": 1}), CONFIG)
    part = "{models: [{model: a}, {model: b}]}"
    text = f"modules: {{model: {part}}}\nmerge_method: linear\nparameters: {{weight: 1}}\n"
    plan = plait.plan(recipe(text))
    assert "model.extra.weight" in {step.name for step in plan.steps}
    assert [drop.name for drop in plan.dropped if drop.name.startswith("mtp")] == ["mtp.fc.weight"]
    text = f"modules: {{model: {part}, default: {part}}}\nmerge_method: linear\nparameters: {{weight: 1}}\n"
    names = [step.name for step in plait.plan(recipe(text)).steps]
    assert (names.count("model.extra.weight"), names.count("mtp.fc.weight")) == (1, 1)


def test_what_is_tied_is_not_copied(write_model, recipe):
    without = arrays()
    del without["lm_head.weight"]
    for name, held in (("a", without), ("b", arrays())):
        write_model(name, held, CONFIG | {"tie_word_embeddings": True})
    plan = plait.plan(recipe(LINEAR))
    assert "lm_head.weight" not in {step.name for step in plan.steps}
    assert [(drop.name, drop.reason) for drop in plan.dropped] == [
        ("lm_head.weight", "tied to model.embed_tokens.weight")
    ]
    assert plan.warnings == ()


def test_a_model_of_another_class_is_passed_over_but_not_said_to_lack_it(write_model, recipe):
    write_model("a", arrays(), CONFIG)
    write_model("b", arrays(**{"extra.weight": 1}), CONFIG | {"architectures": ["Other"]})
    write_model("c", arrays(**{"extra.weight": 1}), CONFIG)
    plan = plait.plan(recipe(LINEAR.replace("}]", "}, {model: c}]", 1)))
    step = next(step for step in plan.steps if step.name == "extra.weight")
    assert (plan.models[step.sources[0].model].reference, step.reason) == ("c", "not in a")
    assert [(drop.model, drop.name) for drop in plan.dropped] == [("b", "extra.weight")]
