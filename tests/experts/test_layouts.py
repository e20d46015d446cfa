"""Users' pain 4: the same experts, stored in two layouts, are one to a merge; the output has the base's."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

import plait

FAMILIES = ["mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v3", "olmoe", "gpt_oss"]
LAYOUTS = [("each", "stacked"), ("stacked", "each")]
WAYS = {
    "linear": "parameters: {weight: 0.5}",
    "ties": "parameters: {weight: 0.5, density: 0.6}",
    "slerp": "parameters: {t: 0.4}",
}


def merged(folder, out):
    plait.merge(folder, out)
    return load_file(out / "model.safetensors")


def same(one, two):
    assert one.keys() == two.keys()
    for name, array in one.items():
        assert array.dtype == two[name].dtype
        assert array.tobytes() == two[name].tobytes(), name


@pytest.mark.parametrize(("base", "other"), LAYOUTS)
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merge_with_itself_in_the_other_layout_gives_its_bytes(made, recipe, tmp_path, name, base, other, dtype):
    family = made(name, dtype)
    a, b = family.folders["a", base], family.folders["a", other]
    text = f"{{merge_method: linear, base_model: {a}, models: [{{model: {a}}}, {{model: {b}}}], parameters: {{weight: 0.5}}}}"
    same(load_file(a / "model.safetensors"), merged(recipe(text), tmp_path / "out"))
    if dtype == "float32" and (name, base) != ("gpt_oss", "each"):  # a layout that transformers does not load
        np.testing.assert_array_equal(family.logits(tmp_path / "out"), family.logits(a))


@pytest.mark.parametrize("method", WAYS)
@pytest.mark.parametrize("name", FAMILIES)
def test_merges_across_layouts_are_those_within_one(made, recipe, tmp_path, name, method):
    family = made(name)
    a = family.folders["a", "stacked"]
    results = []
    for layout in ("stacked", "each"):
        b = family.folders["b", layout]
        models = f"[{{model: {b}}}]" if method == "ties" else f"[{{model: {a}}}, {{model: {b}}}]"
        text = f"{{merge_method: {method}, base_model: {a}, models: {models}, {WAYS[method]}}}"
        results.append(merged(recipe(text), tmp_path / layout))
    same(*results)
    logits = family.logits(tmp_path / "each")
    assert np.isfinite(logits).all()
    assert not np.array_equal(logits, family.logits(a))
