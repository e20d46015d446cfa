"""The lock: the same bytes again from the same inputs, and a refusal when an input has changed."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import plait
from plait.output.lock import read_lock

DARE = """\
models:
  - {{model: {root}a, parameters: {{weight: 0.6, density: 0.5}}}}
  - {{model: {root}b, parameters: {{weight: 0.3, density: 0.7}}}}
merge_method: dare_ties
base_model: {root}base
seed: 5
"""


def weights(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.glob("model*.safetensors"))}


@pytest.fixture
def models(write_llama):
    return [write_llama(name, seed) for seed, name in enumerate(("base", "a", "b"))]


@pytest.mark.parametrize("where", ["relative", "absolute"])
def test_a_lock_gives_the_same_bytes(where, recipe, models, tmp_path, monkeypatch):
    path = recipe(DARE.format(root=f"{tmp_path}/" if where == "absolute" else ""))
    out = plait.merge(path, tmp_path / "out", shard_size=1000).path
    assert len(weights(out)) > 1
    monkeypatch.chdir("/")
    again = plait.merge(out / "plait.lock", tmp_path / "again", threads=1).path
    assert weights(again) == weights(out)
    third = plait.merge(again / "plait.lock", tmp_path / "third").path
    assert weights(third) == weights(out)
    assert json.loads((third / "plait.lock").read_text()) == json.loads((again / "plait.lock").read_text())


def test_a_lock_of_stages_gives_the_same_bytes(recipe, models, tmp_path):
    path = recipe("""\
        name: one
        models: [{model: a}, {model: b}]
        merge_method: linear
        parameters: {weight: 1}
        ---
        models: [{model: one}]
        merge_method: task_arithmetic
        base_model: base
        parameters: {weight: 0.5}
        """)
    out = plait.merge(path, tmp_path / "out").path
    assert set(json.loads((out / "plait.lock").read_text())["models"]) == {"a", "b", "base"}
    assert weights(plait.merge(out / "plait.lock", tmp_path / "again").path) == weights(out)


def test_models_and_output_may_move_together(recipe, models, tmp_path, monkeypatch):
    out = plait.merge(recipe(DARE.format(root="")), tmp_path / "out").path
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("base", "a", "b", "out"):
        shutil.move(tmp_path / name, moved / name)
    monkeypatch.chdir("/")
    assert weights(plait.merge(moved / "out" / "plait.lock", tmp_path / "again").path) == weights(moved / "out")
    assert not out.exists()


def test_a_changed_input_is_refused_by_name(recipe, models, write_llama, tmp_path):
    out = plait.merge(recipe(DARE.format(root="")), tmp_path / "out").path
    shutil.rmtree(tmp_path / "b")

    def nudge(arrays):
        arrays["model.norm.weight"][3] += np.float32(1e-3)

    write_llama("b", 2, change=nudge)
    with pytest.raises(
        plait.MergeError, match=r"1 input tensors are not what the lock was made from, such as b: model.norm.weight"
    ):
        plait.merge(out / "plait.lock", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_lock_states_versions_hashes_and_seed(recipe, models, tmp_path):
    out = plait.merge(recipe(DARE.format(root="")), tmp_path / "out", seed=9).path
    entry = json.loads((out / "plait.lock").read_text())
    assert entry["seed"] == 9
    assert entry["versions"]["plait"] == plait.__version__
    assert len(entry["inputs"]) == 63
    assert all(len(digest) == 32 for digest in entry["inputs"].values())
    assert entry["models"] == {"base": "../base", "a": "../a", "b": "../b"}


def test_an_ordinary_recipe_is_no_lock_and_a_damaged_lock_is_told(tmp_path):
    (tmp_path / "r.yml").write_text("models: []\n")
    assert read_lock(tmp_path / "r.yml") is None
    assert read_lock(tmp_path / "absent") is None
    (tmp_path / "x.lock").write_text('{"plait_lock": 1, "recipe": "x"}')
    with pytest.raises(plait.CheckpointError, match="a damaged lock"):
        read_lock(tmp_path / "x.lock")
    (tmp_path / "x.lock").write_text('{"plait_lock": 99}')
    with pytest.raises(plait.CheckpointError, match="a lock of format 99; this plait reads format 1"):
        read_lock(tmp_path / "x.lock")
