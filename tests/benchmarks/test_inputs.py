"""What is measured of inputs that are not plain: each is read as what it is said to be, and told beside its copy limit."""

from __future__ import annotations

from dataclasses import replace

import pytest

import plait

KINDS = ("fp8", "int8", "nf4", "gptq", "awq", "packed", "mxfp4", "lora", "dora", "loras", "aligned")


@pytest.fixture
def tiny(bench, monkeypatch):
    """The module, with sizes of a toy."""
    inputs, synthetic = bench("inputs"), bench("synthetic")
    size = synthetic.Shape(256, 512, 1, 4, 2, 128)
    monkeypatch.setattr(inputs, "SIZE", size)
    monkeypatch.setattr(inputs, "VOCABULARY", replace(size, vocab=300))
    monkeypatch.setattr(inputs, "_STRETCH", 1 << 16)
    monkeypatch.setattr(inputs, "EXPERTS", (1, 64, 96))
    inputs._stretch.cache_clear()
    yield inputs
    inputs._stretch.cache_clear()


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_merged_as_what_it_is_said_to_be(name, tiny, tmp_path):
    kind = tiny.KINDS[name]
    tiny.make_inputs(tmp_path, kind.reads)
    recipe = tiny.write_recipe(kind, tmp_path, tmp_path / "recipe.yml")
    plan = plait.plan(recipe)
    made = [s.name for s in plan.steps if any(i.tensor is not None and i.tensor.derived for i in s.inputs)]
    assert made, "something is made that no file holds"
    plait.merge(recipe, tmp_path / "out", threads=1)
    assert plait.inspect(tmp_path / "out").tensors.keys() == plait.inspect(tmp_path / kind.reads[0]).tensors.keys()


def test_every_kind_is_among_the_extras_and_told_beside_its_copy_limit(bench, tmp_path):
    extras, report, run = bench("extras"), bench("report"), bench("measure").Run
    assert set(KINDS) < set(extras.EXTRAS)
    assert set(bench("inputs").KINDS) == set(KINDS)
    kept = extras.KeptExtras(tmp_path / "extras.json")
    kept.put("lora", [extras.Extra("a LoRA", run(5.0, 8.0, 10**8), 3, 0, 0, run(2.0, 4.0, 10**7), 10**9, 10**9)])
    kept.put("plan", [extras.Extra("planning", run(1.0, 1.0, 10**7), 3, 5)])
    again = extras.KeptExtras(tmp_path / "extras.json").extras()
    told = report.sections([], again, runs=3, command="c", python="p", mergekit=None)
    assert list(told) == ["## Planning, depth, start", report.INPUTS]
    assert "| a LoRA | 1.0 + 1.0 GB | 2.00 s | 5.00 s | 2.50 | 2 | **missed** | 2.00 | 100 MB |" in told[report.INPUTS]
    kept.put("lora", [extras.Extra("a LoRA", run(4.0, 8.0, 10**8), 3, 0, 0, run(2.0, 4.0, 10**7), 10**9, 10**9)])
    told = report.sections([], kept.extras(), runs=3, command="c", python="p", mergekit=None)
    assert "| 2.00 | 2 | met | 2.00 |" in told[report.INPUTS]
