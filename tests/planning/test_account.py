"""The law of conservation: every input tensor is merged, copied or listed as dropped; every output name is one step's."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import plait

NAMES = (
    *(
        f"model.layers.{i}.{part}"
        for i in range(2)
        for part in ("attn.q.weight", "attn.q.bias", "mlp.w.weight", "steps")
    ),
    *("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", "mtp.0.fc.weight", "mtp.head.weight"),
    *("inv_freq", "visual.patch.weight"),
)
SHAPES = {"model.embed_tokens.weight": (5, 2), "lm_head.weight": (5, 2)}
METHODS = ("linear", "ties", "passthrough-stack", "linear-stack", "task_arithmetic-rules")
ALWAYS = {"model.layers.0.attn.q.weight", "model.layers.1.attn.q.weight", "model.norm.weight"}
ALWAYS |= {"model.layers.0.mlp.w.weight", "model.layers.1.mlp.w.weight"}  # without it a layer is of another kind
subsets = st.sets(st.sampled_from(NAMES)).map(lambda names: names | ALWAYS)


def array(name):
    if name.endswith("steps"):
        return np.arange(3)
    return np.ones(SHAPES.get(name, (2,)), np.float32)


def write(folder, names, *, tied, bare):
    names = {name for name in names if name.startswith("model.")} if bare else names
    shown = {name.removeprefix("model.") if bare else name: array(name) for name in names}
    folder.mkdir()
    save_file(shown, folder / "model.safetensors")
    config = {"vocab_size": 5, "num_hidden_layers": 2, "tie_word_embeddings": tied}
    (folder / "config.json").write_text(json.dumps(config))


def recipe(kind, root):
    method, _, shape = kind.partition("-")
    if shape == "stack":
        second = f"\n  - {{model: {root}/b, layer_range: [0, 1]}}" if method == "linear" else ""
        parts = [f"- sources:\n  - {{model: {root}/a, layer_range: [0, 1]}}{second}" for _ in range(2)]
        text = "slices:\n" + "\n".join(parts) + f"\nmerge_method: {method}\n"
    else:
        text = f"models: [{{model: {root}/a}}, {{model: {root}/b}}]\nmerge_method: {method}\n"
    text += f"base_model: {root}/base\n" if method in {"ties", "task_arithmetic"} else ""
    text += "parameters: {weight: 1}\n" if method != "passthrough" else ""
    if shape == "rules":
        text += f"tensors:\n- {{match: '*norm*', drop: true}}\n- {{match: '*.0.attn.q.weight', copy_from: {root}/b}}\n"
    return text


def stored(plan):
    return Counter((model.reference, name) for model in plan.models for name in plait.inspect(model.path).tensors)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(METHODS), st.lists(subsets, min_size=3, max_size=3), st.lists(st.booleans(), min_size=6, max_size=6)
)
def test_every_tensor_is_accounted_for(kind, names, flags):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for model, own, tied, bare in zip(("base", "a", "b"), names, flags[:3], flags[3:], strict=True):
            write(root / model, own, tied=tied, bare=bare)
        (root / "r.yml").write_text(recipe(kind, root))
        plan = plait.plan(root / "r.yml")
        read = {(plan.models[source.model].reference, source.name) for step in plan.steps for source in step.inputs}
        dropped = Counter((drop.model, drop.name) for drop in plan.dropped)
        assert all(count == 1 for count in dropped.values())
        assert not read & dropped.keys()
        assert read | dropped.keys() == stored(plan).keys()
        assert all(drop.reason for drop in plan.dropped)
        outputs = Counter(step.name for step in plan.steps)
        assert all(count == 1 for count in outputs.values())
        assert not outputs.keys() & plan.tied.keys()


def test_extra_tensors_are_merged_when_all_have_them(recipe, write_llama, warnings_of):
    def extra(arrays):
        arrays["mtp.fc.weight"] = np.ones((2, 2), np.float32)

    for seed, name in enumerate(("a", "b")):
        write_llama(name, seed, change=extra)
    write_llama("c", 3)
    text = "models: [{model: %s}, {model: %s}]\nmerge_method: linear\nparameters: {weight: 1}\n"
    plan = plait.plan(recipe(text % ("a", "b")))
    assert next(step for step in plan.steps if step.name == "mtp.fc.weight").method == "linear"
    assert plan.dropped == ()
    first = plait.plan(recipe(text % ("a", "c")))
    step = next(step for step in first.steps if step.name == "mtp.fc.weight")
    assert (step.action, step.reason) == ("copy", "not in c")
    assert [str(warning) for warning in first.warnings] == [
        "r.yml:1: 1 tensor copied, not merged (not in c): mtp.fc.weight."
    ]
    last = plait.plan(recipe(text % ("c", "a")))
    step = next(step for step in last.steps if step.name == "mtp.fc.weight")
    assert (step.action, step.reason, last.models[step.sources[0].model].reference) == ("copy", "not in c", "a")
    assert last.dropped == ()
    assert "1 tensor copied, not merged (not in c): mtp.fc.weight." in str(last.warnings[0])


def test_what_a_third_lacks_is_copied_from_the_base_and_the_others_values_are_listed(recipe, write_llama):
    write_llama("base", 0)
    write_llama("a", 1)
    write_llama("b", 2, change=lambda arrays: arrays.pop("lm_head.weight"))
    plan = plait.plan(
        recipe("""\
        models: [{model: a}, {model: b}]
        merge_method: task_arithmetic
        base_model: base
        parameters: {weight: 1}
        """)
    )
    step = next(step for step in plan.steps if step.name == "lm_head.weight")
    assert (step.action, plan.models[step.sources[0].model].reference) == ("copy", "base")
    (drop,) = plan.dropped
    assert (drop.model, drop.name) == ("a", "lm_head.weight")
    assert drop.reason == "not in b, so lm_head.weight is copied from one model"


def test_rules_drop_copy_and_merge_otherwise(recipe, llamas):
    plan = plait.plan(
        recipe("""\
        models: [{model: a}, {model: b}]
        merge_method: ties
        base_model: base
        parameters: {weight: 1}
        tensors:
          - {match: model.norm.weight, copy_from: b}
          - {match: '*.mlp.*', drop: true}
          - {match: '*.0.self_attn.q_proj.weight', merge_method: linear, parameters: {weight: 0.5}}
          - {match: '*.q_proj.weight', parameters: {density: 0.25}}
        """)
    )
    steps = {step.name: step for step in plan.steps}
    norm = steps["model.norm.weight"]
    assert (norm.action, plan.models[norm.sources[0].model].reference) == ("copy", "b")
    assert not any(".mlp." in name for name in steps)
    assert steps["model.layers.0.self_attn.q_proj.weight"].method == "linear"
    assert steps["model.layers.0.self_attn.q_proj.weight"].parameters["weight"] == (0.5, 0.5, 0.5)
    assert steps["model.layers.1.self_attn.q_proj.weight"].parameters["density"] == (0.25, 0.25)
    assert steps["lm_head.weight"].parameters["density"] == (1.0, 1.0)
    assert {(drop.model, drop.name) for drop in plan.dropped if "norm" in drop.name} == {
        (model, "model.norm.weight") for model in ("base", "a")
    }


def test_a_model_named_only_by_a_rule_gives_only_that(recipe, llamas, write_llama):
    write_llama("head", 9)
    plan = plait.plan(
        recipe("""\
        models: [{model: a}, {model: b}]
        merge_method: linear
        parameters: {weight: 1}
        tensors: [{match: lm_head.weight, copy_from: head}]
        """)
    )
    assert len([drop for drop in plan.dropped if drop.model == "head"]) == 20
    assert plan.warnings == ()


@pytest.mark.parametrize(("weights", "count"), [("parameters: {weight: 1}", 3), ("", 2)])
def test_a_base_that_is_not_listed_is_averaged_only_when_a_weight_applies_to_it(weights, count, recipe, llamas):
    plan = plait.plan(
        recipe(
            "models:\n- {model: a, parameters: {weight: 1}}\n- {model: b, parameters: {weight: 1}}\n"
            f"merge_method: linear\nbase_model: base\n{weights}\n"
        )
    )
    assert {len(step.sources) for step in plan.steps} == {count}
    assert plan.models[plan.donor].reference == "base"
    assert len(plan.dropped) == (0 if count == 3 else 21)
    assert plan.warnings == ()


def test_a_base_gives_what_others_lack(recipe, llamas, write_llama):
    for seed, name in enumerate(("c", "d"), 5):
        write_llama(name, seed, change=lambda arrays: arrays.pop("lm_head.weight"))
    plan = plait.plan(
        recipe("""\
        models: [{model: c, parameters: {weight: 1}}, {model: d, parameters: {weight: 1}}]
        merge_method: linear
        base_model: base
        """)
    )
    head = next(step for step in plan.steps if step.name == "lm_head.weight")
    assert (head.action, plan.models[head.sources[0].model].reference) == ("copy", "base")


def test_parameters_of_the_base_are_warned_of(warnings_of, llamas):
    told = warnings_of("""\
        models:
          - model: base
            parameters: {weight: 1}
          - model: a
            parameters: {weight: 1}
        merge_method: task_arithmetic
        base_model: base
        """)
    assert told == [
        "r.yml:3: weight of base has no effect: it is the base, and task_arithmetic works on differences from it."
    ]


def test_int8_mask_is_accepted_with_a_note(recipe, llamas):
    plan = plait.plan(
        recipe("""\
        models: [{model: a}, {model: b}]
        merge_method: ties
        base_model: base
        parameters: {weight: 1, int8_mask: true}
        """)
    )
    assert plan.warnings == ()
    assert any("int8_mask has no effect" in note for note in plan.notes)


def test_differences_of_meaning_name_both_values(warnings_of, llamas, tmp_path):
    for name, theta in (("a", 1e4), ("b", 1e6)):
        config = json.loads((tmp_path / name / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps(config | {"rope_theta": theta}))
    told = warnings_of("models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 1}\n")
    assert told == ["r.yml:1: rope_theta differs: 10000.0 (a), 1000000.0 (b)."]


def test_post_steps_take_gradients(recipe, llamas):
    plan = plait.plan(
        recipe("""\
        models: [{model: a}, {model: b}]
        merge_method: task_arithmetic
        base_model: base
        parameters: {weight: 1}
        post: [{scale: [0.5, 1.5]}, {clamp: 0.1}]
        """)
    )
    posts = {step.name: step.post for step in plan.steps}
    assert posts["model.embed_tokens.weight"] == (("scale", {"value": 0.5}), ("clamp", {"value": 0.1}))
    assert posts["model.layers.1.mlp.up_proj.weight"][0] == ("scale", {"value": 1.5})
    assert posts["lm_head.weight"][0] == ("scale", {"value": 1.5})


def test_a_text_model_is_merged_into_the_language_part_of_another(recipe, write_llama):
    def inside(arrays):
        for name in list(arrays):
            arrays[f"language_model.{name}"] = arrays.pop(name)
        arrays["vision_tower.patch.weight"] = np.ones((2, 2), np.float32)

    write_llama("vision", 0, change=inside)
    write_llama("a", 1)
    plan = plait.plan(
        recipe("""\
        models: [{model: a}]
        merge_method: task_arithmetic
        base_model: vision
        parameters: {weight: 1}
        """)
    )
    merged = [step for step in plan.steps if step.action == "merge"]
    assert len(merged) == 21
    assert all(step.name == f"language_model.{step.sources[0].name}" for step in merged)
    assert [step.name for step in plan.steps if step.action == "copy"] == ["vision_tower.patch.weight"]
    assert plan.dropped == ()
    assert any("21 names read with 'language_model' to match vision" in note for note in plan.notes)


def test_modules_are_merged_each_in_its_way_and_the_rest_is_copied(recipe, write_model):
    names = [f"{side}.layers.{i}.w.weight" for side, depth in (("encoder", 3), ("decoder", 2)) for i in range(depth)]
    config = {"encoder_layers": 3, "decoder_layers": 2, "is_encoder_decoder": True}
    for name in ("a", "b"):
        write_model(name, {key: np.ones(2, np.float32) for key in (*names, "shared.weight")}, config)
    plan = plait.plan(
        recipe("""\
        modules:
          encoder:
            slices:
            - sources: [{model: a, layer_range: [0, 1]}, {model: b, layer_range: [1, 2]}]
            - sources: [{model: a, layer_range: [2, 3]}, {model: b, layer_range: [2, 3]}]
          decoder:
            models: [{model: a}, {model: b}]
            parameters: {weight: 3}
        merge_method: linear
        parameters: {weight: 1}
        """)
    )
    steps = {step.name: step for step in plan.steps}
    assert sorted(steps) == [
        *("decoder.layers.0.w.weight", "decoder.layers.1.w.weight"),
        *("encoder.layers.0.w.weight", "encoder.layers.1.w.weight", "shared.weight"),
    ]
    assert [source.name for source in steps["encoder.layers.0.w.weight"].sources] == names[:2]
    assert steps["decoder.layers.1.w.weight"].parameters["weight"] == (3.0, 3.0)
    assert steps["shared.weight"].reason == "in none of the recipe's modules"
    assert plan.config is not None
    assert (plan.config["encoder_layers"], plan.config["decoder_layers"]) == (2, 2)
    assert "1 tensor copied, not merged (in none of the recipe's modules): shared.weight." in str(plan.warnings)


def test_what_the_last_slices_model_lacks_comes_from_the_first(recipe, llamas, write_llama):
    write_llama("bare", 9, change=lambda arrays: arrays.pop("lm_head.weight"))
    plan = plait.plan(
        recipe("""\
        slices:
        - sources: [{model: a, layer_range: [0, 2]}]
        - sources: [{model: bare, layer_range: [0, 2]}]
        merge_method: passthrough
        """)
    )
    head = next(step for step in plan.steps if step.name == "lm_head.weight")
    assert (plan.models[head.sources[0].model].reference, head.reason) == ("a", "not in bare")


@pytest.mark.parametrize(("kind", "action"), [("XModel", "copy"), ("XForCausalLM", "merge")])
def test_the_embedding_stands_for_the_head_of_a_tied_model_but_not_of_a_headless_one(kind, action, recipe, write_model):
    names = ("model.embed_tokens.weight", "model.norm.weight", "model.layers.0.w.weight")
    arrays = {name: array(name) for name in names}
    write_model(
        "a", arrays | {"lm_head.weight": array("lm_head.weight")}, {"vocab_size": 5, "architectures": ["XForCausalLM"]}
    )
    write_model("b", arrays, {"vocab_size": 5, "architectures": [kind]})
    plan = plait.plan(recipe("models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 1}\n"))
    head = next(step for step in plan.steps if step.name == "lm_head.weight")
    assert head.action == action
    assert [source.name for source in head.sources] == ["lm_head.weight", "model.embed_tokens.weight"][
        : len(head.sources)
    ]
    assert len(head.sources) == (2 if action == "merge" else 1)


def test_an_embedding_that_stands_for_a_head_is_not_dropped_with_it(recipe, write_model):
    names = ("model.embed_tokens.weight", "model.layers.0.w.weight")
    arrays = {name: array(name) for name in names}
    for name, tied in (("a", False), ("b", True)):
        write_model(name, arrays, {"vocab_size": 5, "tie_word_embeddings": tied})
    write_model(
        "base", arrays | {"lm_head.weight": array("lm_head.weight")}, {"vocab_size": 5, "tie_word_embeddings": False}
    )
    plan = plait.plan(
        recipe("""\
        models: [{model: a}, {model: b}]
        merge_method: task_arithmetic
        base_model: base
        parameters: {weight: 1}
        """)
    )
    assert plan.dropped == ()
    assert [len(step.inputs) for step in plan.steps if step.name == "model.embed_tokens.weight"] == [3]


def test_integer_buffers_are_copied_held_against_each_other_and_odd_ones_listed(recipe, write_model):
    for name, count in (("a", 3), ("b", 3), ("c", 4)):
        write_model(name, {"w.weight": np.ones(2, np.float32), "steps": np.arange(count)})
    plan = plait.plan(
        recipe("models: [{model: a}, {model: b}, {model: c}]\nmerge_method: linear\nparameters: {weight: 1}\n")
    )
    step = next(step for step in plan.steps if step.name == "steps")
    assert (step.action, [source.model for source in step.sources]) == ("copy", [0, 1])
    (drop,) = plan.dropped
    assert (drop.model, drop.name) == ("c", "steps")
    assert "not a float, and of another shape or type" in drop.reason
