"""Several documents in one file give what they give one by one, with what lies between them written out."""

from __future__ import annotations

import pytest

import plait

STAGES = {
    "element": ("linear", "parameters: {weight: [0.3, 0.9]}", ""),
    "base": ("task_arithmetic", "parameters: {weight: 0.4, scale: 0.7}", "base_model: base"),
    "span": ("slerp", "parameters: {t: 0.3}", "base_model: a"),
    "measured": ("ties", "parameters: {weight: 0.8, density: 0.3}", "base_model: base"),
    "magnitude": ("magmax", "parameters: {scale: 0.5}", "base_model: base"),
}
FINAL = {
    "linear": "models: [{model: one}, {model: c}]\nmerge_method: linear\nparameters: {weight: [1, 0.25]}\n",
    "span": "models: [{model: c}]\nmerge_method: slerp\nbase_model: one\nparameters: {t: 0.6}\n",
    "ties": "models: [{model: one}, {model: c}]\nmerge_method: ties\nbase_model: base\nparameters: {weight: 1, density: 0.4}\n",
    "as base": "models: [{model: b}, {model: c}]\nmerge_method: ties\nbase_model: one\nparameters: {weight: 1, density: 0.6}\n",
    "stack": "slices:\n- sources: [{model: one, layer_range: [0, 2]}]\n- sources: [{model: c, layer_range: [1, 2]}]\n"
    "merge_method: passthrough\n",
}


def weights(folder):
    return {file.name: file.read_bytes() for file in folder.glob("model*.safetensors")}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("final", FINAL)
@pytest.mark.parametrize("first", STAGES)
def test_stages_give_the_bytes_of_written_intermediates(first, final, dtype, recipe, llamas, write_llama, tmp_path):
    write_llama("c", 8)
    method, parameters, base = STAGES[first]
    stage = f"models: [{{model: a}}, {{model: b}}]\nmerge_method: {method}\n{parameters}\n{base}\ndtype: {dtype}\n"
    both = recipe(f"name: one\n{stage}---\n{FINAL[final]}")
    together = plait.merge(both, tmp_path / "together", threads=2).path
    plait.merge(recipe(stage, "first.yml"), tmp_path / "one", threads=1)
    apart = plait.merge(recipe(FINAL[final], "final.yml"), tmp_path / "apart", threads=1).path
    assert weights(together) == weights(apart)
    assert (together / "config.json").read_text() == (apart / "config.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        *("a", "apart", "b", "base", "c", "one", "together"),
    ]


def test_three_documents_in_any_order(recipe, llamas, write_llama, tmp_path):
    for seed, name in enumerate(("biology", "chat", "code"), 10):
        write_llama(name, seed)
    path = recipe("""\
        merge_method: dare_ties
        base_model: base
        models:
          - {model: joined, parameters: {density: 0.6, weight: 0.5}}
          - {model: code, parameters: {density: 0.8, weight: 0.5}}
        ---
        name: joined
        merge_method: slerp
        base_model: mean
        models: [{model: chat}]
        parameters: {t: 0.5}
        ---
        name: mean
        merge_method: linear
        models: [{model: base}, {model: biology}]
        parameters: {weight: 0.5}
        """)
    plan = plait.plan(path)
    assert [model.reference for model in plan.models if model.stage] == ["mean", "joined"]
    first, again = (plait.merge(path, tmp_path / name, threads=n).path for name, n in (("x", 1), ("y", 2)))
    assert weights(first) == weights(again)


def test_a_stage_hands_on_its_template_and_config(recipe, llamas, tmp_path):
    (tmp_path / "a" / "tokenizer_config.json").write_text('{"chat_template": "{{ old }}"}')
    path = recipe("""\
        name: one
        models: [{model: a}, {model: b}]
        merge_method: linear
        parameters: {weight: 1}
        chat_template: "{{ new }}"
        out_dtype: float16
        ---
        models: [{model: one}]
        merge_method: passthrough
        """)
    out = plait.merge(path, tmp_path / "out").path
    assert (out / "chat_template.jinja").read_text() == "{{ new }}"
    assert "{{ new }}" in (out / "tokenizer_config.json").read_text()
    assert '"torch_dtype": "float16"' in (out / "config.json").read_text()


def test_only_what_the_last_document_reads_is_made(recipe, llamas):
    plan = plait.plan(
        recipe("""\
        name: one
        models: [{model: a}, {model: b}]
        merge_method: linear
        parameters: {weight: 1}
        ---
        slices:
        - sources: [{model: base, layer_range: [0, 1]}]
        - sources: [{model: one, layer_range: [1, 2]}]
        merge_method: passthrough
        """)
    )
    names = {step.name for step in plan.stage_steps}
    assert "model.layers.1.mlp.up_proj.weight" in names
    assert not any(name.startswith("model.layers.0.") for name in names)
    assert {drop.model for drop in plan.dropped} == {"base", "one"}
