"""Components, regular expressions and numbers a layer, planned against models."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

import plait
from plait.planning.render import explained_as_text

TWO = "models: [{model: a}, {model: b}]\nmerge_method: ties\nbase_model: base\n"


@pytest.fixture
def steps(recipe, llamas):
    """The steps of an indented recipe's plan, by name."""
    return lambda text: {step.name: step for step in plait.plan(recipe(text), explain=True).steps}


def test_a_method_for_each_component(steps):
    found = steps(
        TWO
        + """\
parameters: {weight: 0.5}
tensors:
  - {component: attention, regex: 'layers\\.1\\.', merge_method: task_arithmetic}
  - {component: attention, merge_method: dare_linear}
  - {component: norms, merge_method: linear, parameters: {weight: 1}}
  - {component: head, copy_from: a}
  - {component: embeddings, parameters: {density: 0.25}}
"""
    )
    methods = {name.removesuffix(".weight").removeprefix("model."): step.method for name, step in found.items()}
    assert methods == {
        "embed_tokens": "ties",
        **{f"layers.0.self_attn.{one}_proj": "dare_linear" for one in "qkvo"},
        **{f"layers.1.self_attn.{one}_proj": "task_arithmetic" for one in "qkvo"},
        **{f"layers.{i}.mlp.{one}_proj": "ties" for i in (0, 1) for one in ("gate", "up", "down")},
        **{f"layers.{i}.{one}_layernorm": "linear" for i in (0, 1) for one in ("input", "post_attention")},
        "norm": "linear",
        "lm_head": "",
    }
    assert found["model.embed_tokens.weight"].parameters["density"] == (0.25, 0.25)
    assert found["model.layers.0.mlp.up_proj.weight"].parameters["density"] == (1.0, 1.0)
    text = explained_as_text(found["model.layers.1.self_attn.q_proj.weight"])
    assert (
        "merge_method = task_arithmetic    r.yml:6, tensors regex 'layers\\.1\\.' and component 'attention'\n" in text
    )
    assert "merge_method = ties    r.yml:2, recipe\n" in explained_as_text(found["model.layers.0.mlp.up_proj.weight"])


def test_gradients_for_each_component(steps):
    found = steps(
        TWO
        + """\
parameters:
  weight: [{component: mlp, value: [0, 1]}, {component: attention, value: [1, 3]}, {value: 7}]
  scale: [{component: norms, value: 0.5}, {filter: q_proj, value: 2}, {value: 1}]
"""
    )
    weights = {name: step.parameters["weight"][0] for name, step in found.items()}
    assert [weights[f"model.layers.{i}.mlp.up_proj.weight"] for i in (0, 1)] == [0, 1]
    assert [weights[f"model.layers.{i}.self_attn.q_proj.weight"] for i in (0, 1)] == [1, 3]
    assert {weights[name] for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")} == {7}
    scales = {name: step.parameters["scale"] for name, step in found.items()}
    assert {scale for name, scale in scales.items() if "norm" in name} == {0.5}
    assert {scale for name, scale in scales.items() if "q_proj" in name} == {2}
    assert {scale for name, scale in scales.items() if "norm" not in name and "q_proj" not in name} == {1}
    text = explained_as_text(found["model.layers.1.mlp.up_proj.weight"])
    assert "weight of a = 1    r.yml:5, recipe: component 'mlp', gradient [0, 1] at t=1" in text


def test_a_post_step_is_left_out_where_its_filters_are(steps):
    found = steps(TWO + "parameters: {weight: 1}\npost: [{clamp: [{component: mlp, value: [0.5, 1]}]}, {scale: 2}]\n")
    clamped = {name: step.post[0] for name, step in found.items() if len(step.post) == 2}
    assert {name for name in found if ".mlp." in name} == clamped.keys()
    assert clamped["model.layers.0.mlp.up_proj.weight"] == ("clamp", {"value": 0.5})
    text = explained_as_text(found["model.layers.0.mlp.up_proj.weight"])
    assert "clamp.value = 0.5    r.yml:5, post step clamp: component 'mlp', gradient [0.5, 1] at t=0" in text


def test_numbers_a_layer_reach_the_plan_and_the_lock_alone_reproduces_them(recipe, llamas, tmp_path):
    (tmp_path / "weights.csv").write_text("layer,a,b\n0,0.1,0.2\n1,0.3,0.4\n")
    (tmp_path / "scale.json").write_text("[0.5,\n2]")
    path = recipe(TWO + "parameters:\n  weight: {file: weights.csv}\n  scale: {file: scale.json}\n")
    found = {step.name: step for step in plait.plan(path, explain=True).steps}
    assert [found[f"model.layers.{i}.mlp.up_proj.weight"].parameters["weight"] for i in (0, 1)] == [
        (0.1, 0.2),
        (0.3, 0.4),
    ]
    assert [found[f"model.layers.{i}.mlp.up_proj.weight"].parameters["scale"] for i in (0, 1)] == [0.5, 2]
    assert found["model.embed_tokens.weight"].parameters["weight"] == (0.1, 0.2)
    assert found["lm_head.weight"].parameters["weight"] == (0.3, 0.4)
    text = explained_as_text(found["model.layers.1.mlp.up_proj.weight"])
    assert "weight of b = 0.4    r.yml:5, recipe: weights.csv:3, layer 1 of 2" in text
    assert "scale = 2    r.yml:6, recipe: scale.json:2, layer 1 of 2" in text

    plait.merge(path, tmp_path / "out")
    (tmp_path / "weights.csv").unlink()
    (tmp_path / "scale.json").unlink()
    written = (tmp_path / "out" / "plait_recipe.yml").read_text()
    assert 'weight: {layers: {"a": [0.1, 0.3], "b": [0.2, 0.4]}}\n  scale: {layers: [0.5, 2.0]}\n' in written
    (tmp_path / "again.yml").write_text(written)
    plait.merge(tmp_path / "out" / "plait.lock", tmp_path / "from-lock")
    plait.merge("again.yml", tmp_path / "from-copy")
    whole = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert (tmp_path / "from-lock" / "model.safetensors").read_bytes() == whole
    assert (tmp_path / "from-copy" / "model.safetensors").read_bytes() == whole


def test_numbers_run_over_the_slice(recipe, llamas, tmp_path):
    (tmp_path / "w.csv").write_text("1\n2\n")
    text = """\
        slices:
          - sources: [{model: a, layer_range: [0, 1], parameters: {weight: 5}}]
          - sources: [{model: a, layer_range: [0, 2], parameters: {weight: {file: w.csv}}}]
        merge_method: linear
        parameters: {normalize: false}
        """
    plan = plait.plan(recipe(text))
    weights = {step.name: step.parameters.get("weight") for step in plan.steps}
    assert [weights[f"model.layers.{i}.mlp.up_proj.weight"] for i in range(3)] == [(5.0,), (1.0,), (2.0,)]
    assert (weights["model.embed_tokens.weight"], weights["lm_head.weight"]) == ((5.0,), (2.0,))


def test_what_is_merged_is_what_was_asked(recipe, llamas, tmp_path):
    path = recipe("""\
        models: [{model: a}, {model: b}]
        merge_method: linear
        parameters:
          weight:
            - {component: attention, value: {layers: {a: [1, 0], b: [0, 1]}}}
            - {value: 1}
        """)
    plait.merge(path, tmp_path / "out")
    out, a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "a", "b"))
    for name, value in out.items():
        source = {True: (a, b)[".1." in name], False: {name: (a[name] + b[name]) / 2}}["self_attn" in name]
        np.testing.assert_array_equal(value, source[name], err_msg=name)


FAULTS = {
    "component of a rule": (
        "tensors: [{component: other, drop: true}]",
        "r.yml:5: rule component 'other' matches no output tensor that an earlier rule has not taken.",
    ),
    "regex": (
        "tensors: [{regex: '^layers', drop: true}]",
        "r.yml:5: rule regex '^layers' matches no output tensor that an earlier rule has not taken.",
    ),
    "component of a filter": (
        "post: [{scale: [{component: other, value: 2}]}]",
        "r.yml:5: component 'other' matches no tensor. There are: attention, embeddings, head, mlp, norms.",
    ),
    "filter within a component": (
        "post: [{scale: [{component: mlp, filter: q_proj, value: 2}]}]",
        "r.yml:5: filter 'q_proj' matches no tensor of component 'mlp'. Did you mean 'up_proj'? Filters match part of",
    ),
    "too few": (
        "post: [{scale: {value: {layers: [1]}}}]",
        "r.yml:5: 'value' has 1 numbers, one a layer; there are 2 layers, as at model.layers.0.",
    ),
    "too many": (
        "post: [{scale: {value: {layers: [1, 2, 3]}}}]",
        "r.yml:5: 'value' has 3 numbers, one a layer; there are 2 layers, as at model.layers.0.",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_fits_nothing_is_refused(case, faults, llamas):
    text, told = FAULTS[case]
    (found,) = faults(TWO + "parameters: {weight: 1}\n" + text + "\n")
    assert found.startswith(told)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("1\n2\n3\n", ["r.yml:4: 'weight' has 3 numbers, one a layer; there are 2 layers, as at model.layers.0."]),
        (
            "a,c\n1,2\n1,2\n",
            [
                "r.yml:2: ties needs 'weight' for b; nothing sets it for 21 tensors",
                "r.yml:4: 'weight' has numbers a layer for c, which is not merged (recipe). Models: a, b.",
            ],
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_told(content, told, faults, llamas, tmp_path):
    (tmp_path / "c.csv").write_text(content)
    found = faults(TWO + "parameters: {weight: {file: c.csv}}\n")
    assert len(found) == len(told)
    for one, start in zip(sorted(found), sorted(told), strict=True):
        assert one.startswith(start)


def test_a_model_left_out_of_a_file_does_not_fall_back_on_a_default(faults, llamas, tmp_path):
    (tmp_path / "c.csv").write_text("a\n1\n1\n")
    assert faults(TWO + "parameters: {weight: 1, density: {file: c.csv}}\n") == [
        "r.yml:4: 'density' has no numbers a layer for b (recipe). Write a column for every model."
    ]


def test_a_number_out_of_range_is_told_with_its_line(faults, llamas, tmp_path):
    (tmp_path / "c.csv").write_text("layer,a,b\n1,0.5,3\n0,2,0.5\n")
    assert faults(TWO + "parameters: {weight: 1, density: {file: c.csv}}\n") == [
        "c.csv:2: ties: density = 3.0 (recipe); expected a number from 0 to 1.",
        "c.csv:3: ties: density = 2.0 (recipe); expected a number from 0 to 1.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "models: [{model: a, parameters: {weight: {layers: {a: [1, 2]}}}}, {model: b, parameters: {weight: 1}}]\n",
        "models: [{model: a}, {model: b}]\nparameters: {weight: 1, scale: {layers: {a: [1, 2], b: [1, 2]}}}\n",
    ],
)
def test_columns_are_for_numbers_of_each_model_only(text, faults, llamas):
    (told,) = faults(text + "merge_method: ties\nbase_model: base\n")
    assert "takes one number a layer here, not one for each model" in told


def test_a_head_is_one_by_its_shape_where_its_name_does_not_tell(recipe, write_model):
    for seed, name in enumerate(("a", "b")):
        draw = np.random.default_rng(seed).standard_normal
        shapes = {"tok.weight": (16, 8), "embed.weight": (16, 8), "layers.0.mlp.up.weight": (12, 8)}
        write_model(name, {key: draw(shape).astype(np.float32) for key, shape in shapes.items()}, {"vocab_size": 16})
    text = "models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 1}\n"
    plan = plait.plan(recipe(text + "tensors: [{component: head, copy_from: b}]"))
    assert [step.name for step in plan.steps if step.action == "copy"] == ["tok.weight"]
