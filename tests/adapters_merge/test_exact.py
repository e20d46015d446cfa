"""Sums of adapters: factors beside each other, of any ranks and scalings, are the sum to the rounding of float32."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from safetensors.numpy import load_file

ROUNDING = 2e-7


def recipe(weights, method="task_arithmetic", adapter=None, **more):
    models = [{"model": name, "parameters": {"weight": weight}} for name, weight in weights.items()]
    return {"models": models, "merge_method": method, "adapter": adapter or {"exact": True}, **more}


def close(found, wanted, bound=ROUNDING):
    assert np.linalg.norm(found - wanted) <= bound * np.linalg.norm(wanted)


def test_ranks_alphas_patterns_and_negative_weights(adapter, merge, deltas):
    one = adapter("one", 1, r=4, lora_alpha=3, rank_pattern={"q_proj": 2}, alpha_pattern={"0.self_attn.v_proj": 5})
    two = adapter("two", 2, r=6, use_rslora=True, target_modules=["q_proj", "up_proj"])
    made = merge(recipe({"one": 0.7, "two": -1.3}))
    found, first, second = deltas(made.path), deltas(one), deltas(two)
    assert found.keys() == first.keys() | second.keys()
    for name, delta in found.items():
        close(delta, 0.7 * first.get(name, 0) - 1.3 * second.get(name, 0))
    ranks = {one.module.rpartition(".")[2]: one.rank for one in made.modules}
    assert ranks == {"q_proj": 2 + 6, "v_proj": 4, "up_proj": 6}
    assert made.error == 0


def test_b_is_kept_byte_for_byte(adapter, merge):
    one = adapter("one", 1)
    made = merge(recipe({"one": 0.3}))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    before, after = (load_file(folder / "adapter_model.safetensors")[name] for folder in (one, made.path))
    assert before.tobytes() == after.tobytes()


def test_linear_is_the_mean_and_a_module_that_is_not_there_counts_as_no_change(adapter, merge, deltas):
    one, two = adapter("one", 1), adapter("two", 2, target_modules=["q_proj"])
    found = deltas(merge(recipe({"one": 1, "two": 3}, "linear")).path)
    first, second = deltas(one), deltas(two)
    for name, delta in found.items():
        close(delta, 0.25 * first[name] + 0.75 * second.get(name, 0))
    found = deltas(merge(recipe({"one": 1, "two": 3}, "linear", parameters={"normalize": False})).path)
    for name, delta in found.items():
        close(delta, first[name] + 3 * second.get(name, 0))


def test_weights_by_filter_and_component(adapter, merge, deltas):
    one, two = adapter("one", 1), adapter("two", 2)
    said = recipe({"one": 1, "two": 1})
    said["models"][1]["parameters"]["weight"] = [{"filter": "q_proj", "value": 2}, {"value": [0, 1]}]
    found, first, second = deltas(merge(said).path), deltas(one), deltas(two)
    for name, delta in found.items():
        weight = 2 if "q_proj" in name else int(name.split(".")[2])
        close(delta, first[name] + weight * second[name])


def test_an_adapter_that_counts_nothing_takes_no_rank(adapter, merge):
    adapter("one", 1), adapter("two", 2, r=6, target_modules=["q_proj", "up_proj"])
    made = merge(recipe({"one": 1, "two": 0}))
    assert {one.rank for one in made.modules} == {4}
    assert [name.rpartition(".")[2] for name in made.left_out] == ["up_proj", "up_proj"]


def test_differences_from_an_adapter(adapter, merge, deltas):
    start, one, two = (adapter(name, seed) for seed, name in enumerate(["start", "one", "two"]))
    found = deltas(merge(recipe({"one": 0.5, "two": 0.8}, base_model="start")).path)
    zero, first, second = deltas(start), deltas(one), deltas(two)
    for name, delta in found.items():
        close(delta, zero[name] + 0.5 * (first[name] - zero[name]) + 0.8 * (second[name] - zero[name]))


def test_rules_drop_and_copy(adapter, merge, deltas):
    adapter("one", 1), adapter("two", 2)
    rules = [{"match": "*.layers.0.*", "copy_from": "two"}, {"match": "*.1.*.v_proj.*", "drop": True}]
    made = merge(recipe({"one": 1, "two": 1}, tensors=rules))
    found, two = deltas(made.path), deltas(made.path.with_name("two"))
    assert len(found) == 3
    for name in found:
        if ".0." in name:
            close(found[name], two[name])


def peft_of(hf, base, folders, how, weights, **options):
    """The deltas of peft's add_weighted_adapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = hf.peft.PeftModel.from_pretrained(base(), folders[0], adapter_name="0")
        for number, folder in enumerate(folders[1:], 1):
            model.load_adapter(folder, adapter_name=str(number))
        names = [str(number) for number in range(len(folders))]
        model.add_weighted_adapter(names, weights, "merged", combination_type=how, **options)
    layers = dict(model.base_model.model.named_modules())
    return {
        name: layer.get_delta_weight("merged").detach().double().numpy()
        for name, layer in layers.items()
        if hasattr(layer, "get_delta_weight") and "merged" in layer.lora_A
    }


def test_peft_cat_is_the_same_change(hf, base, adapter, merge, deltas):
    one, two = adapter("one", 1, r=4), adapter("two", 2, r=6, lora_alpha=5)
    theirs = peft_of(hf, base, [one, two], "cat", [0.6, 0.9])
    ours = deltas(merge(recipe({"one": 0.6, "two": 0.9})).path)
    assert ours.keys() == theirs.keys()
    for name in ours:
        close(ours[name], theirs[name], 1e-6)


def test_peft_svd_is_the_same_change(hf, base, adapter, merge, deltas):
    one, two = adapter("one", 1, r=4), adapter("two", 2, r=6, lora_alpha=5)
    theirs = peft_of(hf, base, [one, two], "svd", [0.6, -0.9], svd_rank=5)
    ours = deltas(merge(recipe({"one": 0.6, "two": -0.9}, adapter={"rank": 5})).path)
    for name in ours:
        close(ours[name], theirs[name], 2e-6)


def test_peft_linear_means_something_else(hf, base, adapter, merge, deltas):
    """peft's adds A and B apart, so products of one's B with another's A come in; it is no sum of the changes."""
    one, two = adapter("one", 1), adapter("two", 2)
    theirs = peft_of(hf, base, [one, two], "linear", [0.5, 0.5])
    ours = deltas(merge(recipe({"one": 0.5, "two": 0.5}, "linear")).path)
    name = "model.layers.0.self_attn.q_proj"
    assert np.linalg.norm(ours[name] - theirs[name]) > 0.3 * np.linalg.norm(ours[name])
    close(ours[name], (deltas(one)[name] + deltas(two)[name]) / 2)


@pytest.mark.parametrize("code", ["bfloat16", "float16"])
def test_factors_in_the_type_asked_for(adapter, merge, code):
    adapter("one", 1)
    made = merge(recipe({"one": 1}, out_dtype=code))
    header = (made.path / "adapter_model.safetensors").read_bytes()
    entries = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
    assert {entry["dtype"] for key, entry in entries.items() if key != "__metadata__"} == {
        {"bfloat16": "BF16", "float16": "F16"}[code]
    }
