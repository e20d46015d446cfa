"""`plait push`: what is refused here, what goes up, and going on after a cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load

import plait as api
from plait.errors import CheckpointError, OutputError

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own


@pytest.fixture
def out(hub, write_llama, tmp_path):
    """A finished merge, in three files; the hub's list of requests is empty."""
    for seed, name in enumerate("ab"):
        write_llama(name, seed)
    (tmp_path / "recipe.yml").write_text(
        "models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 0.5}\n"
    )
    return api.merge(tmp_path / "recipe.yml", tmp_path / "out", shard_size=2500, verify=False).path


@pytest.fixture
def token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.granted)


def on_hub(hub, repo: str, branch: str = "main") -> dict[str, bytes]:
    repository = hub.repositories[repo]
    return repository.commits[repository.refs[branch]]


def test_a_merge_is_pushed_whole_and_can_be_merged_from_there(hub, out, token, tmp_path):
    made = api.push(out, "org/new", private=True)
    assert made.url == f"{hub.endpoint}/org/new"
    assert made.commit == hub.repositories["org/new"].refs["main"]
    files = on_hub(hub, "org/new")
    assert {name: data for name, data in files.items() if name != ".gitattributes"} == {
        file.name: file.read_bytes() for file in out.iterdir()
    }
    assert hub.repositories["org/new"].private
    assert hub.repositories["org/new"].messages == ["out, made by plait"]
    assert len(api.inspect("org/new").tensors) == len(api.inspect(out).tensors)


def test_a_second_push_sends_what_changed_and_removes_old_shards(hub, out, token, tmp_path):
    api.push(out, "org/new")
    old = [name for name in on_hub(hub, "org/new") if name.startswith("model-")]
    assert len(old) > 2
    hub.forget()
    api.push(out, "org/new", message="again")
    assert not [line for line in hub.requests if line.startswith("PUT")]
    one = api.merge(tmp_path / "recipe.yml", tmp_path / "one", verify=False).path
    api.push(one, "org/new", message="In one file")
    assert [name for name in on_hub(hub, "org/new") if name.startswith("model")] == ["model.safetensors"]
    assert hub.repositories["org/new"].messages[-1] == "In one file"


def test_what_a_cut_push_has_sent_is_not_sent_again(hub, out, token):
    hub.fail("PUT /upload", times=1, status=400)
    with pytest.raises(CheckpointError, match="400"):
        api.push(out, "org/new")
    sent = len([line for line in hub.requests if line.startswith("PUT")]) - 1
    hub.forget()
    api.push(out, "org/new")
    shards = len(list(out.glob("*.safetensors")))
    assert sent + len([line for line in hub.requests if line.startswith("PUT")]) == shards
    assert len(load(on_hub(hub, "org/new")[f"model-00001-of-{shards:05}.safetensors"])) > 0


def test_a_branch(hub, out, token):
    made = api.push(out, "org/new", revision="trial")
    assert made.url == f"{hub.endpoint}/org/new/tree/trial"
    assert "plait.lock" in on_hub(hub, "org/new", "trial")
    assert "plait.lock" not in on_hub(hub, "org/new")


def refused(*arguments, **more) -> str:
    with pytest.raises((OutputError, CheckpointError)) as caught:
        api.push(*arguments, **more)
    return str(caught.value)


def test_what_is_refused_before_anything_is_asked(hub, out, token, tmp_path, offline, monkeypatch):
    assert "no such folder" in refused(tmp_path / "none", "org/new")
    assert "no such folder" in refused(tmp_path / "none", "org/new", any_folder=True)
    assert "plait did not write this: there is no plait.lock in it" in refused(tmp_path / "a", "org/new")
    assert "'new' is no name of a repository; write owner/name." in refused(out, "new")
    offline()
    assert "HF_HUB_OFFLINE is set" in refused(out, "org/new")
    offline(False)
    monkeypatch.delenv("HF_TOKEN")
    assert "no token to push with. Log in (`hf auth login`)" in refused(out, "org/new")
    shard = next(out.glob("*.safetensors"))
    shard.rename(out / "gone")
    assert "is not whole: " in refused(out, "org/new")
    assert "shards are missing" in refused(out, "org/new")
    (out / "gone").rename(shard)
    (out / "journal.jsonl").write_text("")
    assert "a merge that did not come to its end" in refused(out, "org/new")
    out.rename(tmp_path / "x.partial")
    assert "a merge that did not come to its end" in refused(tmp_path / "x.partial", "org/new")
    assert hub.requests == []


def test_any_folder_is_pushed_when_told_to(hub, out, token, tmp_path):
    (tmp_path / "a" / ".secret").write_text("mine")
    api.push(tmp_path / "a", "org/a", any_folder=True)
    assert on_hub(hub, "org/a").keys() == {".gitattributes", "model.safetensors", "config.json"}


def test_private_is_not_taken_for_done_where_everybody_can_read(hub, out, token):
    hub.add("org/public", {"README.md": b""})
    assert "org/public is there and everybody can read it" in refused(out, "org/public", private=True)
    assert on_hub(hub, "org/public") == {"README.md": b""}


def test_a_token_that_may_not_write(hub, out, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    hub.fail("POST /api/repos/create", status=403)
    assert "your token may not do this with org/new (403" in refused(out, "org/new")


def test_an_adapter_is_pushed(hub, token, write_llama, tmp_path):
    base = write_llama("base", 0)
    tuned = write_llama(
        "tuned", 0, change=lambda arrays: arrays.update({"lm_head.weight": arrays["lm_head.weight"] * 2})
    )
    made = api.extract(base, tuned, tmp_path / "adapter", rank=1)
    api.push(made.path, "org/adapter")
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= on_hub(hub, "org/adapter").keys()


def test_the_command_line(hub, out, plait, tmp_path):
    done = plait("push", "out", "org/new", "--private", "--quiet", HF_TOKEN=hub.granted)
    assert (done.returncode, done.stdout) == (0, f"{hub.endpoint}/org/new\n"), done.stderr
    done = plait("push", "out", "org/new", "--json", HF_TOKEN=hub.granted)
    assert json.loads(done.stdout)["commit"] == hub.repositories["org/new"].refs["main"]
    done = plait("push", str(Path("a")), "org/new")
    assert done.returncode == 2
    assert "--any-folder" in done.stderr
