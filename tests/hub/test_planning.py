"""Planning from a hub: headers by range requests, never weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save

import plait as api
from plait.errors import CheckpointError, RecipeError

RECIPE = """
models:
  - model: org/a
  - model: org/b@main
merge_method: linear
parameters: {weight: 0.5}
"""


def sharded(seed: int, shards: int = 3, rows: int = 2048) -> dict[str, bytes]:
    """A checkpoint of `shards` files, with an index, and beside it what nobody needs."""
    rng = np.random.default_rng(seed)
    files, where = {}, {}
    for index in range(shards):
        name = f"model-{index + 1:05d}-of-{shards:05d}.safetensors"
        tensors = {f"model.layers.{index}.mlp.weight": rng.standard_normal((rows, 64)).astype(np.float32)}
        files[name] = save(tensors)
        where |= dict.fromkeys(tensors, name)
    files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": where}).encode()
    files["config.json"] = json.dumps({"model_type": "llama", "num_hidden_layers": shards}).encode()
    files["README.md"] = b"---\nlicense: mit\n---\n"
    files["generation_config.json"] = b"{}"
    return files | {
        "pytorch_model.bin": b"x" * 100_000, "model.gguf": b"GGUF" * 1000, "original/params.json": b"{}",
        "original/model.safetensors": b"y" * 10_000, "onnx/model.onnx": b"z" * 10_000, "onnx/model.safetensors.index.json": b"{}", "training_args.bin": b"t" * 5000,
    }  # fmt: skip


@pytest.fixture
def recipe(hub, tmp_path):
    hub.add("org/a", sharded(1))
    hub.add("org/b", sharded(2))
    file = tmp_path / "recipe.yml"
    file.write_text(RECIPE)
    return file


def test_a_plan_serves_headers_and_no_weights(hub, tmp_path):
    for number, name in enumerate("ab"):
        hub.add(f"org/{name}", sharded(number, 5, 20_000))  # 25 MB each
    (tmp_path / "recipe.yml").write_text(RECIPE)
    made = api.plan(tmp_path / "recipe.yml")
    assert len(made.steps) == 5
    assert hub.served < 1_000_000  # of 51 MB
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not [line for line in hub.requests if any(part in line for part in (".bin", "gguf", "original", "onnx"))]


def test_a_second_plan_asks_what_the_branches_stand_for_and_nothing_else(hub, recipe):
    first = api.plan(recipe)
    hub.forget()
    second = api.plan(recipe)
    assert [step.name for step in second.steps] == [step.name for step in first.steps]
    assert sorted(hub.requests) == ["GET /api/models/org/a/revision/main", "GET /api/models/org/b/revision/main"]


def test_a_commit_is_asked_for_once(hub, tmp_path):
    commit = hub.add("org/a", sharded(1))
    assert len(api.inspect(f"org/a@{commit}").tensors) == 3
    hub.forget()
    assert f"org/a@{commit} is commit {commit} of the hub." in api.inspect(f"org/a@{commit}").notes
    assert hub.requests == []


def test_a_usual_header_is_one_request(hub):
    tensors = {f"model.layers.{i}.{'x' * 80}.weight": np.ones((8, 64), np.float32) for i in range(300)}  # 50 kB
    hub.add("org/usual", {"model.safetensors": save(tensors), "config.json": b"{}"})
    assert len(api.inspect("org/usual").tensors) == 300
    assert len([line for line in hub.requests if "/cdn/" in line]) == 1


def test_headers_longer_than_the_first_request(hub):
    tensors = {f"model.layers.{i}.{'x' * 80}.weight": np.ones((2, 2), np.float32) for i in range(2000)}
    hub.add("org/long", {"model.safetensors": save(tensors), "config.json": b"{}"})
    assert len(api.inspect("org/long").tensors) == 2000
    assert len([line for line in hub.requests if "/cdn/" in line]) == 2


def test_a_server_without_ranges_is_left_when_the_header_is_there(hub):
    files = sharded(1, 1, 200_000)  # 51 MB
    hub.add("org/a", files)
    hub.fail("/cdn/", times=9, whole=True)
    assert len(api.inspect("org/a").tensors) == 1
    assert [line for line in hub.requests if "/cdn/" in line] == [hub.requests[-1]]


def test_a_busy_hub_and_a_cut_are_waited_out(hub, recipe):
    hub.fail("GET /api/models/org/a", status=503)
    hub.fail("GET /cdn/", status=500)
    hub.fail("GET /cdn/", cut_after=1000)
    assert len(api.plan(recipe).steps) == 3


def test_the_branch_moves_and_is_followed(hub):
    hub.add("org/a", sharded(1))
    assert len(api.inspect("org/a").tensors) == 3
    hub.add("org/a", sharded(1, 2))
    assert len(api.inspect("org/a").tensors) == 2


def told(reference):
    with pytest.raises(CheckpointError) as caught:
        api.inspect(reference)
    return str(caught.value)


def test_faults_name_the_way_out(hub, recipe, tmp_path):
    hub.add("org/gated", sharded(3), gated=True)
    hub.add("org/private", sharded(4), private=True)
    assert "org/gated is gated" in told("org/gated")
    assert f"Ask for access at {hub.endpoint}/org/gated" in told("org/gated")
    assert "no token was sent (`hf auth login`, or set HF_TOKEN)" in told("org/gated")
    assert f"{hub.endpoint} has no model org/private, or it is private" in told("org/private")
    assert "no such file or folder in" in told("org/nothing")
    message = told("org/a@mian")
    assert "org/a has no revision 'mian'. It has main. Did you mean 'main'?" in message
    assert message.endswith("?")
    assert message.startswith("org/a@mian (a hub id: no such file")
    recipe.write_text(RECIPE.replace("org/a", "org/gated").replace("org/b@main", "org/b@v1"))
    with pytest.raises(RecipeError) as caught:
        api.plan(recipe)
    assert [fault.where.line for fault in caught.value.faults] == [3, 4]


def test_a_token_opens_what_is_gated(hub, tmp_path):
    hub.add("org/gated", sharded(3), gated=True)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(hub.granted)
    assert len(api.inspect("org/gated").tensors) == 3
    assert {token for place, token in hub.tokens if place != "/cdn/"} == {f"Bearer {hub.granted}"}
    assert {token for place, token in hub.tokens if place == "/cdn/"} == {""}


def test_a_wrong_token_is_told(hub, tmp_path):
    hub.add("org/gated", sharded(3), gated=True)
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_other")
    assert "the token that was sent may not read it" in told("org/gated")


def test_nobody_there(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    message = told("org/a")
    assert "http://127.0.0.1:9 cannot be reached: Connect" in message
    assert "HF_HUB_OFFLINE=1" in message


def test_without_a_network_the_last_seen_is_used_and_said(hub, recipe, monkeypatch):
    api.plan(recipe)
    hub.fail("GET /api/models", times=99, status=503)
    made = api.plan(recipe)
    assert f"{hub.endpoint} could not be reached: taken as last seen." in made.models[0].notes


def test_offline_a_second_plan_works_and_a_first_names_what_is_missing(hub, recipe, offline):
    api.plan(recipe)
    offline()
    hub.forget()
    assert len(api.plan(recipe).steps) == 3
    assert hub.requests == []
    assert "HF_HUB_OFFLINE is set, and nothing of org/new@main is in the cache" in told("org/new")


def test_offline_small_files_and_headers_that_are_missing_are_all_named(hub, recipe, offline, tmp_path, plait_cache):
    api.inspect("org/a")
    (pieces,) = {file.parent for file in (plait_cache / "hub" / "pieces").iterdir()}
    for file in list(pieces.iterdir())[:2]:
        file.unlink()
    offline()
    message = told("org/a")
    assert message.count(".safetensors") == 2
    assert "hf download org/a --revision" in message
    for name in ("config.json", "model.safetensors.index.json"):
        next((tmp_path / "hf").rglob(name)).unlink()
    message = told("org/a")
    assert "not in the cache: model.safetensors.index.json, config.json." in message


def test_offline_with_a_cache_that_others_filled(hub, offline, monkeypatch, tmp_path):
    from huggingface_hub import snapshot_download

    hub.add("org/a", sharded(1))
    snapshot_download("org/a", ignore_patterns=["*-00002-*"])
    offline()
    assert "1 of 3 shards are missing: model-00002-of-00003.safetensors" in told("org/a")
    offline(False)
    snapshot_download("org/a")
    offline()
    assert len(api.inspect("org/a").tensors) == 3


def test_damaged_pieces_are_read_again(hub, plait_cache):
    hub.add("org/a", sharded(1))
    api.inspect("org/a")
    for file in (plait_cache / "hub" / "pieces").iterdir():
        data = bytearray(file.read_bytes())
        data[40] ^= 1
        file.write_bytes(data)
    hub.forget()
    assert len(api.inspect("org/a").tensors) == 3
    assert len([line for line in hub.requests if "/cdn/" in line]) == 3


def test_a_file_of_another_length_than_listed_is_refused(hub):
    hub.add("org/a", sharded(1, 1))
    hub.fail("/cdn/", times=9, wrong_size=77)
    assert "but the hub sends a file of 77" in told("org/a")


def test_an_empty_repository(hub):
    hub.add("org/empty", {})
    assert "no checkpoint in it" in told("org/empty")
    hub.add("org/empty", {"model.gguf": b"GGUF", "notes.txt": b""})
    assert "It has model.gguf, notes.txt" in told("org/empty")


def test_a_cache_that_cannot_be_written_to(hub, tmp_path):
    hub.add("org/a", sharded(1))
    (tmp_path / "hf").write_text("")
    message = told("org/a")
    assert "HF_HUB_CACHE may name another cache" in message


def test_without_huggingface_hub_folders_do_and_hub_names_say_what_is_missing(plait, write_llama, tmp_path):
    write_llama("a", 0)
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['huggingface_hub'] = None\n")
    done = plait("inspect", "a", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    done = plait("inspect", "org/a", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "names of the hub need the package huggingface_hub" in done.stderr
    assert "pip install 'huggingface_hub>=0.26'" in done.stderr


def test_a_folder_of_that_name_goes_first(hub, tmp_path):
    hub.add("org/a", sharded(1))
    (tmp_path / "org" / "a").mkdir(parents=True)
    (tmp_path / "org" / "a" / "model.safetensors").write_bytes(save({"w": np.ones(2, np.float32)}))
    assert list(api.inspect("org/a").tensors) == ["w"]
    assert hub.requests == []
