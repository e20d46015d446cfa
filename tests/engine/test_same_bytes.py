"""The same bytes, whatever the threads, tiles, batches, shards, hash seed, device or way through the kernels."""

from __future__ import annotations

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

import plait
from plait.engine.device import Cpu
from plait.engine.work import tasks_of

KINDS = ("BF16", "F16", "F32", "F64", "F8_E4M3", "F8_E5M2")


@pytest.fixture
def tile_by_tile(monkeypatch):
    """Take the one-call kernels away."""

    def off() -> None:
        monkeypatch.setattr(Cpu, "merge", lambda *_: None)
        monkeypatch.setattr("plait.engine.tiles.grid_can", lambda *_: False)

    return off


@pytest.mark.kinds("BF16", "F32")
def test_threads_do_not_matter(kind, method, models, recipe, merged, small):
    models(kind)
    path = recipe(method)
    one = merged(path, threads=1)
    assert one.keys() >= {"plait.lock", "README.md", "model.safetensors", "config.json"}
    assert "journal.jsonl" not in one
    assert merged(path, threads=4) == one


def test_batches_and_tiles_do_not_matter(method, models, recipe, merged, monkeypatch):
    models("F16")
    path = recipe(method)
    one = merged(path)
    monkeypatch.setattr(Cpu, "tile", 4096)
    monkeypatch.setattr(Cpu, "batch", 4096)
    assert merged(path) == one


def test_units_do_not_matter_to_weights(method, models, recipe, merged, request):
    models("BF16")
    path = recipe(method)
    large = merged(path)
    request.getfixturevalue("small")
    cut = merged(path)
    assert cut["model.safetensors"] == large["model.safetensors"]
    assert cut["plait.lock"] != large["plait.lock"], "units are part of a tensor's hash: this test no longer cuts any"


def test_shards_do_not_matter(models, recipe, tmp_path, weights, small):
    models("BF16")
    path = recipe("dare_ties")
    plait.merge(path, tmp_path / "one")
    plait.merge(path, tmp_path / "many", shard_size=20_000)
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 3
    assert weights(tmp_path / "many") == weights(tmp_path / "one")


@pytest.mark.representatives
def test_the_memory_that_is_allowed_does_not_matter(method, models, recipe, merged, small):
    models("BF16")
    path = recipe(method)
    assert merged(path, memory=1 << 30) == merged(path, memory=48 << 20)


def test_hash_seeds_do_not_matter(models, recipe, tmp_path):
    models("BF16")
    recipe("dare_ties")
    code = "import plait, sys; plait.merge('recipe.yml', sys.argv[1], threads=2, verify=False)"
    outputs = []
    for seed in "012":
        out = tmp_path / seed / "out"  # the card names the folder
        out.parent.mkdir()
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, str(out)], env=environment, cwd=tmp_path, check=True)
        outputs.append({file.name: file.read_bytes() for file in out.iterdir()})
    assert outputs[0] == outputs[1] == outputs[2]


@pytest.mark.kinds(*KINDS, "mixed")
def test_one_call_and_tile_by_tile_agree(kind, method, models, recipe, merged, tile_by_tile, small):
    models(*(("F32", "BF16", "F16") if kind == "mixed" else (kind,)))
    path = recipe(method)
    one_call = merged(path)
    tile_by_tile()
    assert merged(path) == one_call


@pytest.mark.kinds("BF16", "F32", "F64", "mixed")
def test_a_torch_device_agrees(kind, method, models, recipe, merged, small):
    pytest.importorskip("torch")
    models(*(("BF16", "F32", "F16") if kind == "mixed" else (kind,)))
    path = recipe(method)
    assert merged(path, device="torch:cpu") == merged(path)


def test_plain_reads_and_writes_agree(models, recipe, merged, monkeypatch, small):
    models("BF16")
    path = recipe("ties")
    one = merged(path)
    monkeypatch.setenv("PLAIT_PLAIN_IO", "1")
    assert merged(path) == one


def test_seed_and_content_decide_the_mask_and_paths_do_not(models, write, recipe, merged, tmp_path):
    models()
    path = recipe("dare_ties")
    one = merged(path)["model.safetensors"]
    assert merged(path, seed=1)["model.safetensors"] != one
    (tmp_path / "a").rename(tmp_path / "elsewhere")
    assert merged(recipe(path.read_text().replace("model: a", "model: elsewhere")))["model.safetensors"] == one
    write("a", 1, change=lambda arrays: arrays["lm_head.weight"].__setitem__((0, 0), 0.25))
    changed = merged(recipe("dare_ties"))["model.safetensors"]
    differ = np.flatnonzero(np.frombuffer(changed, np.uint8) != np.frombuffer(one, np.uint8))
    assert len(differ) > 100, "another content is another mask"


def test_the_bytes_are_what_the_equations_say(models, recipe, tmp_path):
    """Against numpy, so that all ways being wrong in the same way would show."""
    models()
    plait.merge(recipe("task_arithmetic"), tmp_path / "out")
    base, a, b, out = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "a", "b", "out"))
    for name, array in out.items():
        exact = base[name] + 0.9 * (0.7 * (a[name] - base[name]) + 0.4 * (b[name] - base[name]))
        np.testing.assert_allclose(array, exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "bfloat16"])
def test_types_are_rounded_once(kind, models, recipe, tmp_path):
    models("F32")
    plait.merge(recipe("linear", out_dtype=kind), tmp_path / "out")
    plait.merge(recipe("linear"), tmp_path / "wide")
    out, wide = plait.load(tmp_path / "out"), plait.load(tmp_path / "wide")
    for name, array in out.items():
        np.testing.assert_array_equal(array, wide[name].astype(getattr(ml_dtypes, kind)))


def test_a_lock_gives_the_same_bytes_and_refuses_other_inputs(models, recipe, tmp_path, merged, small):
    models("BF16")
    plait.merge(recipe("dare_ties"), tmp_path / "first", seed=3)
    again = plait.merge(tmp_path / "first" / "plait.lock", tmp_path / "second")
    first, second = (tmp_path / name / "model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert again.hashes == plait.merge(tmp_path / "second" / "plait.lock", tmp_path / "third").hashes

    file = tmp_path / "b" / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    last = max(plait.inspect(tmp_path / "b").tensors.values(), key=lambda tensor: tensor.offset).name
    with pytest.raises(plait.MergeError, match=rf"1 input tensors are not what the lock .* b: {last}:"):
        plait.merge(tmp_path / "first" / "plait.lock", tmp_path / "fourth")
    assert not (tmp_path / "fourth").exists()


def test_hashes_do_not_depend_on_the_inputs_shards(write, models, recipe, tmp_path, small):
    models("BF16")
    one = plait.merge(recipe("linear"), tmp_path / "one").hashes
    for name in ("a", "b"):
        (tmp_path / name).rename(tmp_path / f"old {name}")
    for seed, name in enumerate(("a", "b"), 1):
        write(name, seed, "BF16", shards=3)
    many = plait.merge(recipe("linear"), tmp_path / "many").hashes
    assert many == one
    assert len(one) == 20
    assert len(set(one.values())) > 15


def test_every_input_tensor_is_hashed(method, models, recipe, tmp_path, small):
    models("BF16")
    result = plait.merge(recipe(method), tmp_path / "out", threads=2)
    read = {f"{result.plan.models[s.model].reference}: {s.name}" for step in result.plan.steps for s in step.inputs}
    assert result.hashes.keys() == read


def test_what_was_not_read_in_order_is_hashed_too(models, recipe, tmp_path, monkeypatch):
    models("BF16")
    whole = plait.merge(recipe("linear"), tmp_path / "whole").hashes
    monkeypatch.setattr("plait.engine.work.CHUNK", 8192)  # units smaller than the chunks of hashes
    monkeypatch.setattr("plait.engine.work.tasks_of", lambda placed: tasks_of(placed)[::-1])
    assert plait.merge(recipe("linear"), tmp_path / "cut", threads=1).hashes == whole


def test_the_output_of_a_merge_can_be_merged(models, recipe, tmp_path, weights):
    models("BF16")
    plait.merge(recipe("linear"), tmp_path / "c")
    text = "models: [{model: c}]\nmerge_method: passthrough\n"
    plait.merge(recipe(text, name="again.yml"), tmp_path / "d")
    assert weights(tmp_path / "d") == weights(tmp_path / "c")
