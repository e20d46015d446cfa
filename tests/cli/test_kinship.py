"""`plait kinship`: the matrix as text and as JSON."""

from __future__ import annotations

import json

import numpy as np


def test_the_matrix_and_the_order(house, plait):
    said = plait("kinship", "base", "a", "b")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].startswith("pearson, ")
    assert lines[3].split()[:2] == ["1", "a"]
    assert lines[3].split()[2] == lines[4].split()[3] == "1.0000"
    assert lines[3].split()[3] == lines[4].split()[2]
    assert lines[-1] == "least alike first: a, b"
    assert "0.0000" not in plait("kinship", "base", "a", "b", "--measure", "euclidean").out


def test_as_json(house, plait):
    data = json.loads(plait("kinship", "base", "b", "a", "--measure", "cosine", "--threads", "1", "--json").out)
    assert (data["models"], data["measure"], data["left_out"]) == (["b", "a"], "cosine", {})
    matrix = np.array(data["matrix"])
    assert matrix.shape == (2, 2)
    assert (matrix == matrix.T).all()
    assert 0.3 < matrix[0, 1] < 0.7, "both have left the same base by as much"
    assert sorted(data["order"]) == ["a", "b"]


def test_what_is_wrong_is_told(house, plait):
    alone = plait("kinship", "base", "a", "--json")
    assert alone.code == 2
    assert json.loads(alone.out)["kind"] == "ArgumentError"
    assert "two or more" in alone.err
    assert plait("kinship", "base").code == 2
    assert "nowhere" in plait("kinship", "base", "a", "nowhere").err


def test_tensors_that_only_some_have_are_listed(house, plait, write_llama):
    def change(arrays):
        del arrays["model.layers.1.mlp.up_proj.weight"]

    write_llama("less", 4, change=change)
    said = plait("kinship", "base", "a", "less")
    assert "not compared: model.layers.1.mlp.up_proj.weight (not in less)" in said.out
