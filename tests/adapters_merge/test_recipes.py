"""Recipes whose output is an adapter: what is read, what is refused and how, what the plan says."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import plait
from plait.errors import CheckpointError, OutputError, RecipeError
from plait.recipe import parse_recipe

HEAD = "models: [{model: one, parameters: {weight: 1}}]\nmerge_method: linear\n"


def told(text):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "r.yml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ("{rank: 16}", "rank", 16),
        ("{energy: 0.99}", "energy", 0.99),
        ("{error: 1e-3}", "error", 0.001),
        ("{exact: true}", "exact", True),
        ("{clusters: 8}", "clusters", 8),
        ("{rank: 4, base_name: org/base}", "base_name", "org/base"),
    ],
)
def test_what_is_read(given, field, value):
    (recipe,) = parse_recipe(f"{HEAD}adapter: {given}\n", "r.yml")
    assert recipe.adapter is not None
    assert getattr(recipe.adapter, field) == value
    assert recipe.adapter.where.line == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{rnak: 16}", "r.yml:3: 'adapter' has no key 'rnak'. Did you mean 'rank'?"),
        ("{}", "r.yml:3: 'adapter' needs exactly one of 'rank', 'energy', 'error', 'exact', 'clusters'."),
        ("{rank: 4, error: 0.1}", "'error', 'exact', 'clusters', but has 'rank' and 'error'."),
        ("{rank: 0}", "'rank' must be a whole number from 1 up, not `0`."),
        ("{rank: 2.5}", "'rank' must be a whole number from 1 up, not `2.5`."),
        ("{energy: 1}", "'energy' must be a fraction between 0 and 1, not `1`."),
        ("{error: yes}", "'error' must be a fraction between 0 and 1, not `yes`."),
        ("{exact: false}", "'exact' can only be true."),
        ("16", "'adapter' must be a mapping, not `16`. Write how much to keep, as `adapter: {rank: 16}`"),
        ("{rank: 4}\ntokenizer_source: union", "r.yml:4: 'tokenizer_source' cannot stand beside 'adapter'."),
        ("{rank: 4}\nchat_template: auto", "r.yml:4: 'chat_template' cannot stand beside 'adapter'."),
    ],
)
def test_faults_of_the_section(given, said):
    assert said in told(f"{HEAD}adapter: {given}\n")


def test_all_faults_at_once():
    text = told("modles: []\nmerge_method: linear\nslices: []\nadapter: {rank: x, eror: 1}\n")
    for part in ("'modles'", "'slices' cannot stand beside", "'rank' must be", "'eror'"):
        assert part in text


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Write a recipe into tmp_path; returns its path."""
    monkeypatch.chdir(tmp_path)

    def write(*names, method="linear", adapter=None, **more):
        models = [{"model": name, "parameters": {"weight": 1}} for name in names]
        text = {"models": models, "merge_method": method, "adapter": adapter or {"rank": 4}, **more}
        (tmp_path / "r.yml").write_text(json.dumps(text))
        return tmp_path / "r.yml"

    return write


def refused(path):
    with pytest.raises(RecipeError) as caught:
        plait.plan(path)
    return str(caught.value)


def change_config(folder, **settings):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def test_adapters_that_are_none_or_of_other_kinds(adapter, recipe, tmp_path):
    adapter("one", 1), adapter("dora", 2, use_dora=True)
    change_config(adapter("ia3", 3), peft_type="IA3")
    (tmp_path / "empty").mkdir()
    text = refused(recipe("one", "dora", "ia3", "empty", "nowhere", "base+one"))
    assert "DoRA (use_dora): what it changes depends on the base's weights" in text
    assert "plait extract" in text
    assert "a IA3 adapter. plait reads LoRA adapters" in text
    assert "no adapter_config.json in" in text
    assert "nowhere: no such file or folder" in text
    assert "base+one: where the output is an adapter, the models are adapters alone. Write one." in text


def test_adapters_of_other_shapes(adapter, recipe, models, tmp_path):
    from safetensors.numpy import load_file, save_file

    adapter("one", 1)
    file = adapter("two", 2) / "adapter_model.safetensors"
    tensors = {name: tensor[:, :-1].copy() if "_A" in name else tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file)
    assert "q_proj makes [32, 32] in one, [32, 31] in two: adapters of different bases" in refused(recipe("one", "two"))
    change_config(adapter("three", 2), r=5)
    assert "has rank 4, but" in refused(recipe("three"))
    assert models, tmp_path


def test_parameters_and_filters_are_judged_as_ever(adapter, recipe):
    adapter("one", 1), adapter("two", 2)
    path = recipe("one", "two", method="tise", parameters={"densty": 1})
    assert "Did you mean 'ties'?" in refused(path)
    path = recipe("one", "two", method="ties", parameters={"densty": 1, "density": [{"filter": "up_proj", "value": 1}]})
    text = refused(path)
    assert "Did you mean 'density'?" in text
    assert "filter 'up_proj' matches no tensor" in text


def test_one_document(adapter, recipe):
    adapter("one", 1)
    path = recipe("one", "x")
    path.write_text(
        '{"name": "x", "models": [{"model": "one"}], "merge_method": "passthrough"}\n---\n' + path.read_text()
    )
    assert "A recipe whose output is an adapter is one document" in refused(path)


def test_bases_that_differ_by_name_are_both_named(adapter, recipe):
    adapter("one", 1)
    change_config(adapter("two", 2), base_model_name_or_path="org/other")
    made = plait.plan(recipe("one", "two"))
    (warning,) = [str(warning) for warning in made.warnings if "different bases" in str(warning)]
    assert "org/other (two)" in warning
    assert "(one)" in warning
    made = plait.plan(recipe("one", "two", adapter={"rank": 4, "base_name": "org/mine"}))
    assert not any("different bases" in str(warning) for warning in made.warnings)
    out = plait.merge(recipe("one", "two", adapter={"rank": 4, "base_name": "org/mine"}), "out").path
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/mine"


def test_adapters_without_a_module_in_common(adapter, recipe):
    adapter("one", 1), adapter("two", 2, target_modules=["up_proj"])
    assert any("no module in common" in str(warning) for warning in plait.plan(recipe("one", "two")).warnings)


def test_a_base_that_has_none_of_the_modules(adapter, recipe, write_llama):
    adapter("one", 1)

    def rename(arrays):
        for name in list(arrays):
            arrays[name.replace("q_proj", "query").replace("v_proj", "value")] = arrays.pop(name)

    write_llama("other", 0, change=rename)
    assert "other has none of the adapters' modules" in refused(recipe("one", base_model="other"))


def test_a_name_alone_needs_no_base_that_can_be_had(adapter, recipe):
    adapter("one", 1)
    text = refused(recipe("one", base_model="no/where"))
    assert "write it as `base_name` in `adapter`" in text


def test_the_plan_says_ranks_and_writes_nothing(adapter, recipe, plait_command, tmp_path):
    adapter("one", 1, r=4), adapter("two", 2, r=6)
    path = recipe("one", "two", method="ties", adapter={"rank": 5})
    before = sorted(tmp_path.iterdir())
    code, out, _ = plait_command("plan", str(path))
    assert (code, sorted(tmp_path.iterdir())) == (0, before)
    assert "keeps: 5 singular values" in out
    assert "model.layers.0.self_attn.q_proj and 3 more: 4 + 6 -> 5, singular vectors of the merged core" in out
    assert "adapter_model.safetensors" in out
    assert "adapter_config.json, README.md, plait_recipe.yml, plait.lock" in out
    code, out, _ = plait_command("plan", str(path), "--json")
    assert json.loads(out)["adapter"]["modules"][0] == {
        "module": "model.layers.0.self_attn.q_proj", "ranks": {"one": 4, "two": 6}, "rank_at_most": 5, "how": "core",
    }  # fmt: skip


def test_the_merge_prints_the_error_of_each_module(adapter, recipe, plait_command):
    adapter("one", 1, r=4), adapter("two", 2, r=6)
    code, out, _ = plait_command("merge", str(recipe("one", "two", adapter={"rank": 5})), "out")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["module", "rank", "relative", "error"]
    assert lines[1].split()[:2] == ["model.layers.0.self_attn.q_proj", "5"]
    assert 0.1 < float(lines[1].split()[2]) < 0.9
    assert lines[-1].startswith("out: 4 modules, total relative error")


def test_a_lock_makes_the_same_bytes_and_notices_other_inputs(adapter, recipe, tmp_path):
    adapter("one", 1), adapter("two", 2)
    out = plait.merge(recipe("one", "two", method="dare_ties", seed=7, parameters={"density": 0.5}), "out").path
    assert {file.name for file in out.iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json", "README.md", "plait_recipe.yml", "plait.lock",
    }  # fmt: skip
    again = plait.merge(out / "plait.lock", "again").path
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (again / file).read_bytes() == (out / file).read_bytes()
    weights = tmp_path / "two" / "adapter_model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-3] ^= 1
    weights.write_bytes(changed)
    with pytest.raises(plait.MergeError, match="1 input tensors are not what the lock was made from"):
        plait.merge(out / "plait.lock", "third")
    assert not (tmp_path / "third").exists()


def test_nothing_is_left_of_a_merge_that_stops(adapter, recipe, tmp_path):
    from safetensors.numpy import load_file, save_file

    adapter("one", 1)
    file = adapter("two", 2) / "adapter_model.safetensors"
    tensors = load_file(file)
    list(tensors.values())[3][0, 0] = float("nan")
    save_file(tensors, file)
    for spec in ({"exact": True}, {"rank": 2}, {"clusters": 2}):
        with pytest.raises(plait.MergeError, match="NaN or infinity"):
            plait.merge(recipe("one", "two", adapter=spec), "out")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "r.yml", "two"]


def test_the_output_may_not_be_an_input_nor_replace_what_is_no_output(adapter, recipe, tmp_path):
    adapter("one", 1)
    with pytest.raises(OutputError, match="the input"):
        plait.merge(recipe("one"), "one", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("no")
    with pytest.raises(OutputError, match="is not empty"):
        plait.merge(recipe("one"), "mine")
    with pytest.raises(OutputError, match="does not look like a model"):
        plait.merge(recipe("one"), "mine", overwrite=True)


def test_the_tokenizer_of_the_first_adapter_that_has_one_comes_along(adapter, recipe):
    adapter("one", 1)
    (adapter("two", 2) / "tokenizer_config.json").write_text('{"x": 1}')
    for method in ("linear", "ties"):
        out = plait.merge(recipe("one", "two", method=method), "out", overwrite=True).path
        assert (out / "tokenizer_config.json").read_text() == '{"x": 1}'


def test_the_merged_adapter_is_a_model_of_an_ordinary_recipe(adapter, recipe, models, tmp_path):
    adapter("one", 1), adapter("two", 2)
    out = plait.merge(recipe("one", "two"), "out").path
    opened = plait.inspect(f"{models('llama')[0]}+{out}")
    assert opened.tensors["model.layers.0.self_attn.q_proj.weight"].derived is not None
    said = {"models": [{"model": f"{models('llama')[0]}+out"}], "merge_method": "passthrough"}
    (tmp_path / "whole.yml").write_text(json.dumps(said))
    plait.merge(tmp_path / "whole.yml", "whole")


def test_a_folder_that_is_no_checkpoint_is_told(tmp_path, recipe):
    assert recipe
    with pytest.raises(CheckpointError):
        plait.inspect(tmp_path / "r.yml")


def test_copies_of_the_bases_own_tensors_are_dropped_by_name(adapter, recipe):
    from safetensors.numpy import load_file, save_file

    file = adapter("one", 1) / "adapter_model.safetensors"
    tensors, name = load_file(file), "base_model.model.lm_head.original_module.weight"
    save_file(tensors | {name: next(iter(tensors.values()))}, file)
    made = plait.merge(recipe("one"), "out")
    assert [(drop.model, drop.name) for drop in made.plan.dropped] == [("one", name)]
    assert len(load_file(made.path / "adapter_model.safetensors")) == len(tensors)


def test_parameters_are_explained_module_by_module(adapter, recipe):
    adapter("one", 1), adapter("two", 2)
    path = recipe("one", "two", method="ties", parameters={"density": [0.1, 0.9]})
    found = plait.explain(path, "*.1.*q_proj*")
    (density,) = {one.value for step in found for one in step.explained if one.parameter == "density"}
    assert density == 0.9


def test_a_step_after_the_method(adapter, recipe, deltas):
    one = deltas(adapter("one", 1))
    post = [{"scale": 3}, {"rescale_norm": {}}]
    thrice = deltas(plait.merge(recipe("one", method="task_arithmetic", post=post[:1]), "out").path)
    back = deltas(plait.merge(recipe("one", method="task_arithmetic", post=post), "back").path)
    for name in one:
        np.testing.assert_allclose(thrice[name], 3 * one[name], atol=1e-5)
        np.testing.assert_allclose(back[name], one[name], atol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="the names of open files are read from /proc")
@pytest.mark.parametrize("sync", [True, False])
def test_what_is_to_be_on_the_disk_is_before_the_adapter_has_its_name(sync, adapter, recipe, monkeypatch):
    adapter("one", 1)
    adapter("two", 2)
    before: set[str] = set()
    real = os.fsync

    def note(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        before.update([path.name] if "out.partial" in str(path) and not Path("out").exists() else [])
        real(fd)

    monkeypatch.setattr(os, "fsync", note)
    plait.merge(recipe("one", "two", adapter={"rank": 2}), "out", sync=sync)
    assert ({"adapter_model.safetensors", "adapter_config.json", "out.partial"} <= before) is sync
