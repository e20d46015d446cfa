"""The shapes of documents that mergekit's users write are read, planned and merged."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import plait

DOCUMENTS = {
    "fusion": "models: [{model: a}, {model: b}]\nmerge_method: arcee_fusion\nbase_model: a\ndtype: bfloat16\n",
    "ties with a mask": """\
models:
  - {model: a, parameters: {density: 0.5, weight: 0.5}}
  - {model: b, parameters: {density: 0.5, weight: 0.5}}
merge_method: ties
base_model: base
parameters:
  normalize: false
  int8_mask: true
dtype: float16
""",
    "slerp by gradients": """\
slices:
  - sources:
      - {model: a, layer_range: [0, 2]}
      - {model: b, layer_range: [0, 2]}
merge_method: slerp
base_model: a
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5 # all others
dtype: float16
""",
    "linear": """\
models:
  - {model: a, parameters: {weight: 1.0}}
  - {model: b, parameters: {weight: 0.3}}
  - {model: base, parameters: {weight: 0.5}}
merge_method: linear
dtype: float16
""",
    "stacked": """\
slices:
  - sources:
    - {model: a, layer_range: [0, 2]}
  - sources:
    - {model: b, layer_range: [1, 2]}
merge_method: passthrough
dtype: float16
""",
    "ties by gradients": """\
models:
  - {model: a, parameters: {density: [1, 0.7, 0.1], weight: 1.0}}
  - {model: b, parameters: {density: 0.5, weight: [0, 0.3, 0.7, 1]}}
  - model: c
    parameters:
      density: 0.33
      weight: [{filter: mlp, value: 0.5}, {value: 0}]
merge_method: ties
base_model: base
parameters: {normalize: true, int8_mask: true}
dtype: float16
""",
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_planned_and_merged(name, recipe, llamas, write_llama, tmp_path):
    write_llama("c", 8)
    path = recipe(DOCUMENTS[name])
    assert plait.plan(path).warnings == ()
    out = plait.load(plait.merge(path, tmp_path / "out", threads=1).path)
    kind = ml_dtypes.bfloat16 if name == "fusion" else np.float16
    assert {array.dtype for array in out.values()} == {np.dtype(kind)}
    assert len(out) == (30 if name == "stacked" else 21)


def test_gradients_run_from_the_embeddings_to_the_head(recipe, llamas, write_llama):
    write_llama("c", 8)
    steps = {step.name: step.parameters for step in plait.plan(recipe(DOCUMENTS["ties by gradients"])).steps}
    assert steps["model.embed_tokens.weight"]["density"] == (1.0, 0.5, 0.33)
    assert steps["model.embed_tokens.weight"]["weight"] == (1.0, 0.0, 0.0)
    assert steps["model.layers.1.mlp.up_proj.weight"]["weight"] == (1.0, 1.0, 0.5)
    for name in ("model.norm.weight", "lm_head.weight"):
        assert steps[name]["density"] == (0.1, 0.5, 0.33)
        assert steps[name]["weight"] == (1.0, 1.0, 0.0)


def test_filters_choose_and_a_plain_value_is_for_the_rest(recipe, llamas):
    steps = {step.name: step.parameters for step in plait.plan(recipe(DOCUMENTS["slerp by gradients"])).steps}
    assert steps["model.layers.0.self_attn.q_proj.weight"]["t"] == 0.0
    assert steps["model.layers.1.self_attn.q_proj.weight"]["t"] == 1.0
    assert steps["model.layers.1.mlp.up_proj.weight"]["t"] == 0.0
    assert steps["model.layers.1.input_layernorm.weight"]["t"] == steps["model.norm.weight"]["t"] == 0.5
