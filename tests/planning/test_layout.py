"""Files of weights: their names, sizes, headers and offsets, fixed before the first byte; and the memory they cost."""

from __future__ import annotations

import json

import pytest

import plait
from plait.dtypes import DTYPES
from plait.planning.layout import index_json, lay_out
from plait.planning.memory import fit_threads, peak_memory
from plait.planning.totals import bytes_read, passes, step_bytes
from plait.planning.types import Step


def step(name, shape, dtype="F32"):
    return Step(name, dtype, shape, "copy", ())


def entries(file):
    length = int.from_bytes(file.header[:8], "little")
    assert len(file.header) == 8 + length
    found = json.loads(file.header[8:])
    assert found.pop("__metadata__") == {"format": "pt"}
    return found


def test_one_file_holds_all_that_fits():
    files, placed = lay_out([step("a", (2, 3)), step("b", (4,))], shard_size=40)
    assert [file.name for file in files] == ["model.safetensors"]
    assert index_json(files, placed) is None
    start = len(files[0].header)
    assert start % 8 == 0
    assert [(one.step.name, one.offset - start) for one in placed] == [("a", 0), ("b", 24)]
    assert files[0].size == start + 40
    assert entries(files[0])["b"] == {"dtype": "F32", "shape": [4], "data_offsets": [24, 40]}


def test_shards_are_cut_before_they_are_too_large_and_one_large_tensor_stands_alone():
    steps = [step("a", (4,)), step("b", (4,)), step("c", (20,)), step("d", (1,))]
    files, placed = lay_out(steps, shard_size=32)
    assert [file.name for file in files] == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert [(one.step.name, one.file) for one in placed] == [("a", 0), ("b", 0), ("c", 1), ("d", 2)]
    index = json.loads(index_json(files, placed) or "")
    assert index["metadata"]["total_size"] == 4 * 29
    assert index["weight_map"] == {one.step.name: files[one.file].name for one in placed}


def test_every_tensor_is_aligned_to_its_type():
    steps = [step("a", (3,), "U8"), step("b", (3,), "BF16"), step("c", (3,), "F64"), step("d", (), "F32")]
    files, placed = lay_out(steps)
    assert [one.step.name for one in placed] == ["c", "d", "b", "a"]
    assert all(one.offset % DTYPES[one.step.dtype].size == 0 for one in placed)
    assert entries(files[0])["d"]["shape"] == []


def test_passes_and_bytes_are_counted(recipe, llamas):
    text = "models: [{model: a}, {model: b}]\nmerge_method: %s\nbase_model: base\nparameters: {weight: 1%s}\n"
    counted = {}
    for method, more in (("task_arithmetic", ""), ("ties", ", density: 0.5"), ("ties", "")):
        plan = plait.plan(recipe(text % (method, more)))
        head = next(one for one in plan.steps if one.name == "lm_head.weight")
        assert step_bytes(head) == 3 * 16 * 8 * 4
        assert bytes_read(plan) == 3 * sum(one.nbytes for one in plan.steps)
        counted[method + more] = passes(head)
    assert counted == {"task_arithmetic": 1, "ties, density: 0.5": 2, "ties": 1}
    slerp = plait.plan(
        recipe("models: [{model: a}, {model: b}]\nmerge_method: slerp\nbase_model: a\nparameters: {t: 0.5}\n")
    )
    assert {passes(one) for one in slerp.steps} == {2}


class Small:
    tile, batch = 1 << 10, 1 << 10


def test_memory_grows_with_threads_and_is_kept_under_the_limit(recipe, llamas):
    plan = plait.plan(recipe("models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 1}\n"))
    one = peak_memory(plan.steps, 1, Small())
    assert peak_memory(plan.steps, 3, Small()) == 3 * one
    assert fit_threads(plan, Small(), 8, 2 * one + 1) == 2
    assert fit_threads(plan, Small(), 1, 100 * one) == 1
    with pytest.raises(plait.PlaitError, match=r"needs .* MiB at once .*, more than --memory .* Raise --memory"):
        fit_threads(plan, Small(), 1, one - 1)
    with pytest.raises(plait.PlaitError, match=r"at least one"):
        fit_threads(plan, Small(), 0, one)
