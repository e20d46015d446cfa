"""The compatibility matrix: some classes that no other test merges, and that a row gone bad is noticed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

CLASSES = (
    "GptOssForCausalLM",
    "DeepseekV3ForCausalLM",
    "Mamba2ForCausalLM",
    "Qwen3NextForCausalLM",
    "LlavaForConditionalGeneration",
    "WhisperForConditionalGeneration",
    "AlbertForMaskedLM",
)


@pytest.fixture(scope="module")
def matrix(bench):
    transformers = pytest.importorskip("transformers")
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    yield bench("compatibility")
    transformers.utils.logging.set_verbosity(before)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_merges_loads_and_computes_what_it_should(name, matrix):
    ((_, group, given, dtype),) = matrix.chosen(name)
    row = matrix.examine(name, group, given, dtype)
    assert row.good, row.remark or row.same


@pytest.mark.slow
def test_no_class_has_turned_bad(matrix):
    kept = json.loads(matrix.KEPT.read_text())
    rows = matrix.examined("")
    assert not matrix.lost({name: matrix.Row(**row) for name, row in kept.items()}, rows)


def test_the_page_and_the_rows_kept_are_of_the_same_classes(matrix):
    rows = [matrix.Row(**row) for row in json.loads(matrix.KEPT.read_text()).values()]
    assert matrix.PAGE.read_text() == matrix.page(rows)
    assert len(rows) >= 90
    assert [row.name for row in rows] == [name for name, *_ in matrix.chosen("")]
    bad = replace(rows[0], loads=False)
    assert matrix.lost({bad.name: rows[0]}, [bad, rows[1]]) == [bad.name]
    assert not matrix.lost({bad.name: bad}, [bad])


def test_a_merge_of_another_model_is_not_taken_for_the_model_itself(matrix, tmp_path, monkeypatch):
    ((_, _, given, dtype),) = matrix.chosen("LlamaForCausalLM")
    one = matrix.Class("LlamaForCausalLM", given, dtype, tmp_path)
    (tmp_path / "twin").rename(tmp_path / "unused")
    (tmp_path / "b").rename(tmp_path / "twin")
    assert matrix._with_itself(one).startswith("differs by")
