import json
import subprocess
import sys
from pathlib import Path

import pytest

from plait.checkpoint import open_checkpoint
from plait.errors import CheckpointError


@pytest.fixture
def model(tmp_path, write_shards, ones):
    return write_shards(tmp_path / "model", {"model.safetensors": {"a": ones(2)}}, index=None)


def refused(*args, **kwargs):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(*args, **kwargs)
    return str(caught.value)


def test_a_relative_path_is_looked_for_here_then_in_the_root(tmp_path, model, monkeypatch, write_shards, ones):
    monkeypatch.chdir(tmp_path)
    assert open_checkpoint("model").path == model
    assert open_checkpoint("model").reference == "model"
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    here = write_shards(recipes / "model", {"model.safetensors": {"z": ones(1)}}, index=None)
    assert list(open_checkpoint("model", root=recipes).tensors) == ["a"]
    monkeypatch.chdir(model)
    assert open_checkpoint("model", root=recipes).path == here
    message = refused("modell", root=recipes)
    assert str(model) in message
    assert str(recipes) in message


def test_links_to_weights_are_kept_as_a_hub_cache_has_them(tmp_path, model):
    snapshot = tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(model / "model.safetensors")
    (tmp_path / "link").symlink_to(snapshot)
    for reference in (tmp_path / "link", tmp_path / "link" / "model.safetensors"):
        assert open_checkpoint(reference).tensors["a"].file == str(snapshot / "model.safetensors")


def test_a_single_file_and_the_config_beside_it(model):
    checkpoint = open_checkpoint(model / "model.safetensors")
    assert checkpoint.path == model / "model.safetensors"
    assert checkpoint.config == {"model_type": "llama"}


def test_references_that_cannot_be(tmp_path, model, write_tensors, ones):
    assert "empty text" in refused("")
    assert "cannot be looked up" in refused("x" * 5000) or "not of the form" in refused("x" * 5000)
    assert "has no revision ('main')" in refused(str(model), revision="main")
    (tmp_path / "m.onnx").write_bytes(b"ONNX")
    assert "plait reads .safetensors" in refused(tmp_path / "m.onnx")
    one = write_tensors(tmp_path / "model-00001-of-00002.safetensors", {"a": ones(1)})
    assert f"Name its folder: {tmp_path}" in refused(one)
    assert "without a single tensor" in refused(write_tensors(tmp_path / "e.safetensors", {}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n "a": 1,\n oops }', "config.json:3: not valid JSON"),
        ("[1]", "an object expected"),
        ('{"a":' + "[" * 100_000, "nested too deeply"),
        (b'{"a": "\xff"}', "not UTF-8"),
    ],
)
def test_a_broken_config(model, text, message):
    (model / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message in refused(model)


@pytest.mark.parametrize(
    ("config", "note"),
    [
        ({"hidden_size": 4}, "no model_type"),
        (
            {"model_type": "bert", "num_labels": 50, "id2label": {"0": "x", "1": "y"}},
            "num_labels 50, but its id2label has 2",
        ),
        (None, "There is no config.json."),
    ],
)
def test_quirks_of_a_config_become_notes(model, config, note):
    (model / "config.json").unlink()
    if config is not None:
        (model / "config.json").write_text(json.dumps(config))
    checkpoint = open_checkpoint(model)
    assert checkpoint.config == config
    assert [note in said for said in checkpoint.notes] == [True]


def test_a_config_with_infinity_is_read(model):
    (model / "config.json").write_text('{"model_type": "mamba2", "time_step_limit": [0.0, Infinity], "num_labels": 2}')
    assert open_checkpoint(model).notes == ()


def test_the_cache_is_used_offline(tmp_path, model, monkeypatch):
    cache = tmp_path / "cache"
    repo = cache / "models--org--name"
    commit = "a" * 40
    (repo / "snapshots").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    model.rename(repo / "snapshots" / commit)
    code = (
        "import sys; from plait.checkpoint import open_checkpoint;"
        "c = open_checkpoint('org/name'); print(c.path, list(c.tensors)); assert 'torch' not in sys.modules"
    )
    env = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache), "HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(" ", 1)[0].endswith(f"snapshots/{commit}")


def test_nothing_heavy_is_imported():
    code = (
        "import sys, plait.checkpoint;"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
