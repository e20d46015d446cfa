"""Merging from a hub: only what is needed is fetched, cut downloads go on, everything is checked before."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from safetensors.numpy import load_file, save

import plait as api
from plait.errors import CheckpointError, OutputError
from plait.hub import requests

RECIPE = """
models:
  - model: {a}
  - model: {b}
merge_method: linear
parameters: {{weight: 0.5}}
"""
merge = partial(api.merge, verify=False)  # what is verified is the same from folders
BIG = 1_000_000
"""Elements of the one large tensor: 4 MB."""


@pytest.fixture
def pair(hub, write_llama, tmp_path):
    """Write two models, on the hub and in folders; returns a function that writes a recipe of them."""
    folder = tmp_path / "local"
    for seed, name in enumerate("ab"):
        made = write_llama(name, seed, folder=folder, change=lambda arrays: arrays.update(big=arrays_of(len(arrays))))
        (made / "README.md").write_text("---\nlicense: mit\n---\n")
        hub.add(f"org/{name}", made)

    def write(a: str = "org/a", b: str = "org/b", name: str = "recipe.yml") -> Path:
        (tmp_path / name).write_text(RECIPE.format(a=a, b=b))
        return tmp_path / name

    return write


def arrays_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(BIG).astype(np.float32)


def weights(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


def test_a_merge_from_the_hub_gives_the_bytes_of_one_from_folders(hub, pair, tmp_path):
    merge(pair("local/a", "local/b"), tmp_path / "near")
    assert hub.requests == []
    events = []
    merge(pair(), tmp_path / "far", on_event=events.append)
    assert weights(tmp_path / "near") == weights(tmp_path / "far")
    told = [event for event in events if event.kind == "download"]
    size = sum(Path(f"local/{name}/model.safetensors").stat().st_size for name in "ab")
    assert told[-1].fetched == told[-1].to_fetch == size
    assert [event.kind for event in events].index("start") > [event.kind for event in events].index("download")
    served = hub.served
    merge(pair(), tmp_path / "again")
    assert hub.served - served < 10_000
    folder = huggingface_hub.snapshot_download("org/a", local_files_only=True)  # as others find it
    assert load_file(Path(folder) / "model.safetensors").keys() >= {"big"}


def test_only_the_shards_that_are_read_are_fetched(hub, tmp_path):
    tensors = [{f"model.layers.{i}.mlp.weight": np.full((64, 64), i + 1, np.float32)} for i in range(4)]
    files = {f"model-{i + 1:05d}-of-00004.safetensors": save(part) for i, part in enumerate(tensors)}
    where = {name: file for part, file in zip(tensors, files, strict=True) for name in part}
    files["model.safetensors.index.json"] = json.dumps({"weight_map": where}).encode()
    files["config.json"] = json.dumps({"model_type": "llama", "num_hidden_layers": 4}).encode()
    hub.add("org/a", files | {"pytorch_model.bin": b"x", "model.gguf": b"x", "original/model.safetensors": b"x"})
    (tmp_path / "recipe.yml").write_text(
        "slices:\n- sources: [{model: org/a, layer_range: [1, 3]}]\nmerge_method: passthrough\n"
    )
    out = merge(tmp_path / "recipe.yml", tmp_path / "out").path
    assert {array.flat[0] for array in load_file(out / "model.safetensors").values()} == {2, 3}
    found = {file.name for file in (tmp_path / "hf").rglob("snapshots/*/*")}
    assert found == {*list(files)[1:3], "model.safetensors.index.json", "config.json"}


def test_a_cut_is_gone_on_with_at_once(hub, pair, tmp_path):
    made = api.plan(pair())
    hub.forget()
    hub.fail("GET /cdn/", times=3, cut_after=2_500_000)
    hub.fail("GET /cdn/", times=1, status=502)
    merge(pair(), tmp_path / "out", planned=made)
    assert hub.served < 2 * 4 * BIG + 3 * requests.CHUNK + 10_000  # each cut loses less than a piece


def test_a_hub_that_forgets_ranges_sends_the_file_anew(hub, pair, tmp_path):
    merge(pair("local/a", "local/b"), tmp_path / "near")
    made = api.plan(pair())
    hub.fail("GET /cdn/", times=2, cut_after=1_000_000)
    hub.fail("GET /cdn/", times=4, whole=True)
    merge(pair(), tmp_path / "far", planned=made)
    assert weights(tmp_path / "near") == weights(tmp_path / "far")


def begun(tmp_path) -> list[Path]:
    return [file for file in (tmp_path / "hf").rglob("*.plait.incomplete") if file.parent.name == "blobs"]


def test_a_killed_download_is_gone_on_with_by_the_next_run(hub, pair, tmp_path, environment):
    hub.fail("GET /cdn/", times=99, slow=True)
    command = [sys.executable, "-m", "plait", "merge", str(pair()), "out", "--no-verify"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while sum(file.stat().st_size for file in begun(tmp_path)) < 3_000_000 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = sum(file.stat().st_size for file in begun(tmp_path))
    assert kept >= 3_000_000
    assert not (tmp_path / "out").exists()
    hub.faults.clear()
    hub.forget()
    merge(pair(), tmp_path / "out")
    assert hub.served < 2 * 4 * BIG - kept + 100_000
    merge(pair("local/a", "local/b"), tmp_path / "near")
    assert weights(tmp_path / "near") == weights(tmp_path / "out")
    assert not begun(tmp_path)


def test_what_an_earlier_attempt_left_damaged_is_fetched_anew(hub, pair, tmp_path):
    made = api.plan(pair())
    data = Path("local/a/model.safetensors").read_bytes()
    blobs = tmp_path / "hf" / "hub" / "models--org--a" / "blobs"
    (blobs / f"{hashlib.sha256(data).hexdigest()}.plait.incomplete").write_bytes(b"?" * 1_000_000)
    merge(pair(), tmp_path / "out", planned=made)
    assert load_file(tmp_path / "out" / "model.safetensors")["big"].size == BIG


def test_content_that_is_not_what_the_hub_lists_is_refused(hub, pair, tmp_path):
    made = api.plan(pair())
    hub.fail("GET /cdn/", times=99, garbled=True)
    with pytest.raises(CheckpointError, match=r"what came is not what the hub lists \(SHA-256"):
        merge(pair(), tmp_path / "out", planned=made)
    assert not list(tmp_path.glob("out*"))
    hub.faults.clear()  # what the other download kept is found to be wrong, too
    assert merge(pair(), tmp_path / "out").path.exists()


def test_a_hub_that_keeps_failing_is_told_of_and_what_came_is_kept(hub, pair, tmp_path):
    made = api.plan(pair())
    hub.fail("GET /cdn/", times=1, cut_after=1_000_000)
    hub.fail("GET /cdn/", times=99, status=503)
    with pytest.raises(CheckpointError, match=r"answered 503 .* what is fetched is kept"):
        merge(pair(), tmp_path / "out", planned=made)
    assert not list(tmp_path.glob("out*"))
    assert sum(file.stat().st_size for file in begun(tmp_path)) > 900_000


def test_what_goes_by_xet_is_left_to_huggingface_hub(hub, pair, tmp_path, monkeypatch):
    monkeypatch.setattr("plait.hub.fetch._by_xet", lambda _file: True)
    events = []
    merge(pair(), tmp_path / "out", on_event=events.append)
    told = [event for event in events if event.kind == "download"]
    assert told[-1].fetched == told[-1].to_fetch > 2 * 4 * BIG


def test_the_lock_has_commits_and_a_merge_of_it_goes_back_to_them(hub, pair, write_llama, tmp_path):
    first = merge(pair("org/a", "org/b@main"), tmp_path / "first").path
    lock = json.loads((first / "plait.lock").read_text())
    assert lock["commits"] == {"org/a": hub.repositories["org/a"].refs["main"],
                               "org/b@main": hub.repositories["org/b"].refs["main"]}  # fmt: skip
    hub.add("org/b", write_llama("changed", 7, folder=tmp_path / "local"))
    assert weights(merge(first / "plait.lock", tmp_path / "second").path) == weights(first)
    assert (tmp_path / "second" / "plait.lock").read_bytes() == (first / "plait.lock").read_bytes()
    made = api.plan(pair("org/a", "org/b@main"))  # another model by now
    assert {step.action for step in made.steps} == {"merge", "copy"}


def test_a_lock_of_folders_names_no_commits(pair, tmp_path):
    out = merge(pair("local/a", "local/b"), tmp_path / "out").path
    assert "commits" not in json.loads((out / "plait.lock").read_text())


@pytest.mark.parametrize(("free", "enough"), [(11_000_000, False), (13_000_000, True)])
def test_space_is_looked_at_first(hub, pair, tmp_path, monkeypatch, free, enough):
    made = api.plan(pair())
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=free))
    hub.forget()
    if enough:
        merge(pair(), tmp_path / "out", planned=made)
        return
    with pytest.raises(OutputError, match=r"0.01 GB are to be fetched and 0.00 GB for the output on the same disk"):
        merge(pair(), tmp_path / "out", planned=made)
    assert hub.requests == []
    assert not list(tmp_path.glob("out*"))


def test_an_output_that_may_not_be_touched_is_told_before_anything_is_fetched(hub, pair, tmp_path):
    made = api.plan(pair())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    hub.forget()
    with pytest.raises(OutputError, match="is not empty"):
        merge(pair(), tmp_path / "out", planned=made)
    assert hub.requests == []


def test_offline_a_merge_works_from_the_cache_and_else_names_what_is_missing(hub, pair, tmp_path, offline):
    api.plan(pair())
    offline()
    with pytest.raises(CheckpointError) as caught:
        merge(pair(), tmp_path / "out")
    assert "Not in the cache: org/a: model.safetensors, org/b: model.safetensors." in str(caught.value)
    assert not list(tmp_path.glob("out*"))
    offline(False)
    merge(pair(), tmp_path / "first")
    offline()
    hub.forget()
    merge(pair(), tmp_path / "second")
    assert hub.requests == []
    assert weights(tmp_path / "first") == weights(tmp_path / "second")


def test_offline_with_what_others_fetched_by_the_command_line(hub, pair, plait, tmp_path):
    for name in "ab":
        huggingface_hub.snapshot_download(f"org/{name}")
    hub.forget()
    done = plait("merge", str(pair()), "out", "--quiet", "--no-verify", HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert hub.requests == []


def test_other_commands_fetch_what_they_read(hub, pair, write_llama, tmp_path):
    assert api.load("org/a")["big"].size == BIG
    hub.add("org/c", tmp_path / "local" / "b")
    hub.add("org/d", write_llama("d", 9, folder=tmp_path / "local"))
    found = api.kinship(["org/b", "org/d"], "org/a")
    assert found.matrix.shape == (2, 2)
    made = api.extract("org/a@main", "org/c", tmp_path / "adapter", rank=1)
    config = json.loads((made.path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/a", "main")
    assert (made.path / "adapter_model.safetensors").exists()


def test_the_command_line(hub, pair, plait, tmp_path):
    done = plait("plan", str(pair("org/a@main")))
    assert done.returncode == 0, done.stderr
    assert f"org/a@main is commit {hub.repositories['org/a'].refs['main']} of the hub." in done.stdout
    assert "Fetches 8.01 MB from the hub first." in done.stdout
    assert hub.served < 600_000
    done = plait("merge", str(pair()), "out", "--json", "--no-verify")
    assert done.returncode == 0, done.stderr
    kinds = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert kinds[0] == "download"
    done = plait("merge", str(pair("org/a", "org/none")), "out2")
    assert done.returncode == 2
    assert "recipe.yml:4: org/none (a hub id: " in done.stderr
    assert done.stderr.endswith("nothing was written.\n")
    assert "Traceback" not in done.stderr
