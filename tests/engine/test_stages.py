"""Stages: what one document makes feeds the next, tile by tile, as if it had been written and read again."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

import plait
from plait.checkpoint.io import FileReader
from plait.engine.prepare import identity
from plait.engine.tiles import Tiler
from plait.planning.types import Source

STAGES = {
    "element": {"merge_method": "linear", "parameters": {"weight": 0.5}},
    "row": {"merge_method": "model_stock", "base_model": "base", "parameters": {"filter_wise": True}},
    "matrix": {"merge_method": "widen", "base_model": "a"},
    "span": {"merge_method": "karcher"},
    "random": {"merge_method": "dare_ties", "base_model": "base", "parameters": {"weight": 0.5, "density": 0.5}},
    "measured": {"merge_method": "ties", "base_model": "base", "parameters": {"weight": 0.5, "density": 0.5}},
    "whole model": {
        "merge_method": "ties",
        "base_model": "base",
        "parameters": {"weight": 0.5, "density": 0.5, "scope": "model"},
    },
}
LAST = {
    "element": {"merge_method": "linear", "parameters": {"weight": 0.5}},
    "span": {"merge_method": "karcher"},
    "matrix": {"merge_method": "widen", "base_model": "b"},
    "row": {"merge_method": "model_stock", "base_model": "base", "parameters": {"filter_wise": True}},
    "whole model": {
        "merge_method": "ties",
        "base_model": "base",
        "parameters": {"weight": 0.5, "density": 0.5, "scope": "model"},
    },
}


def document(what: dict, *models: str, **more) -> dict:
    return {**what, "models": [{"model": model} for model in models], **more}


@pytest.fixture
def write_documents(tmp_path):
    def made(name: str, *documents: dict):
        (tmp_path / name).write_text(yaml.safe_dump_all(documents, sort_keys=False))
        return tmp_path / name

    return made


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("first", STAGES)
def test_in_one_go_as_by_way_of_the_disk(first, last, models, write_documents, tmp_path, weights, small):
    models("F32")
    inner = document(STAGES[first], "a", "b", name="inner")
    both = write_documents("both.yml", inner, document(LAST[last], "inner", "b"))
    result = plait.merge(both, tmp_path / "out", threads=2)
    one = {key: value for key, value in inner.items() if key != "name"}
    plait.merge(write_documents("one.yml", one), tmp_path / "inner on disk")
    two = write_documents("two.yml", document(LAST[last], "inner on disk", "b"))
    plait.merge(two, tmp_path / "expected")
    assert weights(tmp_path / "out") == weights(tmp_path / "expected")
    stored = {s.tensor.name for step in result.plan.stage_steps for s in step.inputs if s.tensor}
    assert {key.split(": ")[1] for key in result.hashes if key.startswith("a: ")} == stored, "a tensor was not hashed"


def test_the_threads_do_not_matter(models, write_documents, tmp_path, merged, small):
    models("BF16")
    path = write_documents(
        "three.yml",
        document(STAGES["matrix"], "a", "b", name="one"),
        document(STAGES["row"], "one", "b", name="two"),
        document(LAST["whole model"], "two", "one"),
    )
    assert merged(path, threads=1) == merged(path, threads=3)


def test_a_matrix_is_made_once_for_all_tiles(models, write_documents, tmp_path, monkeypatch, small):
    models("F32")
    made: dict[str, int] = {}
    tile = Tiler._tile

    def spy(self, step, *rest):
        made[f"{step.stage}/{step.name}"] = made.get(f"{step.stage}/{step.name}", 0) + 1
        tile(self, step, *rest)

    monkeypatch.setattr(Tiler, "_tile", spy)
    path = write_documents(
        "r.yml", document(STAGES["matrix"], "a", "b", name="inner"), document(LAST["element"], "inner", "b")
    )
    plait.merge(path, tmp_path / "out")
    inner = {name: count for name, count in made.items() if name.startswith("inner/")}
    assert len(inner) == len(plait.load(tmp_path / "out"))
    assert set(inner.values()) == {1}
    assert made["/lm_head.weight"] > 1, "what it goes into is one tile: this test no longer says anything"


def test_no_more_than_one_steps_matrices_are_held(models, write_documents, tmp_path, monkeypatch, small):
    models("F32")
    held = []
    batch = Tiler._batch

    def spy(self, *rest, **more):
        made = batch(self, *rest, **more)
        held.append({inner.name for inner in self._whole})
        return made

    monkeypatch.setattr(Tiler, "_batch", spy)
    path = write_documents(
        "r.yml", document(STAGES["matrix"], "a", "b", name="inner"), document(LAST["span"], "inner", "b")
    )
    plait.merge(path, tmp_path / "out", threads=1)
    assert {len(names) for names in held} == {0, 1}


def test_groups_are_measured_in_the_order_of_stages(models, write_documents, tmp_path, weights, small):
    """One tensor of the first stage is not measured, so that the second stage's group is met before the first's."""
    models("F32")
    first = document(STAGES["whole model"], "a", "b", name="one")
    first["tensors"] = [{"match": "lm_head.*", "merge_method": "task_arithmetic"}]
    second = document(LAST["whole model"], "one", "b", name="two")
    last = document(LAST["element"], "two", "b")
    result = plait.merge(write_documents("all.yml", first, second, last), tmp_path / "out")
    assert [(step.stage, step.method) for step in result.plan.stage_steps][:2] == [
        ("one", "task_arithmetic"),
        ("two", "ties"),
    ], "the steps no longer come in the order that this test is about"
    for number, (name, source) in enumerate({"one": first, "two": second}.items()):
        alone = {key: value for key, value in source.items() if key != "name"}
        plait.merge(write_documents(f"{number}.yml", alone), tmp_path / name)
    plait.merge(write_documents("last.yml", last), tmp_path / "expected")
    assert weights(tmp_path / "out") == weights(tmp_path / "expected")


def test_what_stages_make_is_told_apart_by_how_it_is_made(models, write_documents, small):
    models("F32")
    steps = {}
    for number, weight in enumerate((0.5, 0.5, 0.6)):
        one = document({"merge_method": "linear", "parameters": {"weight": weight}}, "a", "b", name="inner")
        plan = plait.plan(write_documents(f"{number}.yml", one, document(LAST["span"], "inner", "b")))
        steps[number] = plan.stage_steps[0]
    with FileReader() as reader:
        told = [identity(Source(2, step=step), reader) for step in steps.values()]
    assert told[0] == told[1] != told[2]


def test_stages_are_resumed(models, write_documents, tmp_path, merged, small):
    models("BF16")
    path = write_documents(
        "r.yml", document(STAGES["row"], "a", "b", name="inner"), document(LAST["element"], "inner", "b")
    )
    whole = merged(path)

    def halt(event) -> None:
        if event.bytes_written > 120_000:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        plait.merge(path, tmp_path / "out", threads=1, on_event=halt)
    assert merged(path) == whole


def test_post_steps_and_nonfinite_results_of_a_stage(models, write_documents, tmp_path, small):
    models("F16")
    inner = document(STAGES["element"], "a", "b", name="inner", parameters={"weight": 1e9, "normalize": False})
    path = write_documents("r.yml", inner, document(LAST["element"], "inner", "b"))
    with pytest.raises(plait.MergeError, match="linear of a, b made NaN or infinity in float16"):
        plait.merge(path, tmp_path / "out")
    inner = document(STAGES["measured"], "a", "b", name="inner", post=[{"clamp": {"value": 0.0}}])
    path = write_documents("r.yml", inner, document({"merge_method": "passthrough"}, "inner"))
    plait.merge(path, tmp_path / "out", resume=False)
    base, out = plait.load(tmp_path / "base"), plait.load(tmp_path / "out")
    for name, array in out.items():
        np.testing.assert_array_equal(array, base[name])


def test_inputs_of_row_stages_are_read_about_once(models, write_documents, tmp_path, monkeypatch, small):
    models("BF16")
    read: list[int] = []
    into = FileReader.read_into

    def spy(self, file, offset, buffer):
        if "/a/" in file:
            read.append(buffer.nbytes)
        into(self, file, offset, buffer)

    monkeypatch.setattr(FileReader, "read_into", spy)
    path = write_documents(
        "r.yml", document(STAGES["row"], "a", "b", name="inner"), document(LAST["element"], "inner", "b")
    )
    result = plait.merge(path, tmp_path / "out")
    assert sum(read) < 2.1 * sum(step.nbytes for step in result.plan.steps)
