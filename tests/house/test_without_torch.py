"""plait as `pip install plait` gives it: no torch, no transformers, and the same bytes."""

from __future__ import annotations

import json
import subprocess

import pytest
import torch
from safetensors.numpy import load_file

import plait

PARAMETERS = {"linear": "", "ties": "density: 0.5", "slerp": "t: 0.3", "dare_ties": "density: 0.5", "karcher": ""}
RECIPE = """\
models:
  - model: a
    parameters: {{{own}}}
  - model: b
    parameters: {{{own}}}
merge_method: {method}
base_model: base
seed: 3
"""


@pytest.fixture
def models(tmp_path, monkeypatch, write_llama):
    for seed, name in enumerate(("base", "a", "b")):
        write_llama(name, seed)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _recipe(method: str) -> str:
    if method == "slerp":
        return "models: [{model: base}, {model: b}]\nmerge_method: slerp\nbase_model: base\nparameters: {t: 0.3}\n"
    own = ", ".join(part for part in ("weight: 0.5", PARAMETERS[method]) if part)
    if method in {"linear", "karcher"}:
        return RECIPE.format(own="" if method == "karcher" else own, method=method).replace("base_model: base\n", "")
    return RECIPE.format(own=own, method=method)


def test_torch_and_transformers_are_not_there(core):
    code = "import importlib.util as u; print([n for n in ('torch', 'transformers', 'peft') if u.find_spec(n)])"
    assert core("-c", code).stdout == "[]\n"


@pytest.mark.parametrize("method", PARAMETERS)
def test_a_merge_gives_the_same_bytes(core, models, method):
    (models / "r.yml").write_text(_recipe(method))
    core("-m", "plait", "merge", "r.yml", "core", "-q")
    plait.merge("r.yml", "here")
    assert (models / "core/model.safetensors").read_bytes() == (models / "here/model.safetensors").read_bytes()
    assert (models / "core/plait.lock").read_text() == (models / "here/plait.lock").read_text()


def test_a_torch_file_is_read(core, models):
    arrays = load_file(models / "a" / "model.safetensors")
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, models / "a" / "pytorch_model.bin")
    (models / "a" / "model.safetensors").unlink()
    (models / "r.yml").write_text(_recipe("linear"))
    core("-m", "plait", "merge", "r.yml", "out", "-q")
    other = load_file(models / "b" / "model.safetensors")
    for name, array in load_file(models / "out" / "model.safetensors").items():
        torch.testing.assert_close(torch.from_numpy(array), torch.from_numpy((arrays[name] + other[name]) / 2))


def test_the_other_commands(core, models):
    (models / "r.yml").write_text(_recipe("ties"))
    assert core("-m", "plait", "--help").stdout.startswith("Usage")
    assert "ties" in core("-m", "plait", "methods").stdout
    assert len(json.loads(core("-m", "plait", "plan", "r.yml", "--json").stdout)["tensors"]) == 21
    assert "LlamaForCausalLM" in core("-m", "plait", "inspect", "a").stdout
    assert "ties" in core("-m", "plait", "explain", "r.yml", "*norm*").stdout


def test_merging_in_memory(core):
    code = (
        "import numpy as np, plait\n"
        "base, a, b = ({'w': np.arange(6.).reshape(2, 3) * n} for n in (1, 2, 4))\n"
        "print(plait.merge_tensors([a, b], 'task_arithmetic', base=base, weight=[1, 0.5])['w'].tolist())"
    )
    assert json.loads(core("-c", code).stdout) == [[0, 3.5, 7], [10.5, 14, 17.5]]


def test_a_device_that_needs_torch_says_so(core_python, models):
    (models / "r.yml").write_text(_recipe("linear"))
    arguments = [core_python, "-m", "plait", "merge", "r.yml", "out", "--device", "cuda"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode in {1, 2}
    assert "plait[torch]" in done.stderr
    assert "Traceback" not in done.stderr
