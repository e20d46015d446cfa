"""Every method, whether a merge is large enough for loops of its own or not: the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from golden.case import tables
from safetensors.numpy import save_file

import plait
from plait.engine import device, work
from plait.methods import find_method, method_names

NOT_FUSED = {"arcee_fusion", "cabs", "della", "della_linear", "passthrough", "widen"}
"""What sees more than one entry at a time, is a copy, or does what no loop is written for."""


def checkpoint(folder: Path, seed: int) -> str:
    """A tensor that is a vector and one of more than a block, in bfloat16; some entries the same in all models."""
    folder.mkdir()
    common, own = np.random.default_rng(99), np.random.default_rng(seed)
    tensors = {}
    for name, shape in (("a.weight", (70, 80)), ("a.bias", (300,))):
        values = common.standard_normal(shape) + 0.25 * own.standard_normal(shape) * (own.random(shape) < 0.8)
        tensors[name] = values.astype(ml_dtypes.bfloat16)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return str(folder)


def first_parameters(name: str) -> dict:
    """What the method's first golden case that sets a density, or else its first, sets for all models alike."""
    cases = [case.parameters for case in tables().GOLDEN[name]]
    chosen = next((parameters for parameters in cases if "density" in parameters), cases[0])
    return {key: value for key, value in chosen.items() if not isinstance(value, (list, tuple))}


@pytest.mark.parametrize("name", method_names())
def test_the_bytes_are_those_of_the_ops(name, tmp_path, monkeypatch):
    method = find_method(name)
    k = max(1, min(3, method.max_models or 3) - (method.base == "first" and (method.max_models or 3) < 3))
    needed = {"weight": 0.5} if "weight" in method.parameters and "weight" not in method.defaults else {}
    recipe = {
        "models": [{"model": checkpoint(tmp_path / f"m{i}", i)} for i in range(k)],
        "merge_method": name,
        "parameters": {**needed, **first_parameters(name)},
        "dtype": "bfloat16",
    }
    if method.base in {"required", "first"}:
        recipe["base_model"] = checkpoint(tmp_path / "base", 50)
    file = tmp_path / "recipe.yml"
    file.write_text(json.dumps(recipe))
    calls = []
    merge_grid = device.merge_grid
    monkeypatch.setattr(device, "merge_grid", lambda *a, **b: calls.append(merge_grid(*a, **b)) or calls[-1])
    written = []
    for enough in (1 << 27, 0):
        monkeypatch.setattr(work, "ENOUGH", enough)
        out = plait.merge(file, tmp_path / f"out{enough}", verify=False).path
        written.append((out / "model.safetensors").read_bytes())
        assert enough == 0 or not calls
    assert written[0] == written[1]
    assert all(calls)
    assert bool(calls) == (name not in NOT_FUSED)


AGAIN = """
import sys
import plait
from plait.engine import work
work.ENOUGH = 0
plait.merge(sys.argv[1], sys.argv[2], overwrite=True)
print("numba" in sys.modules)
"""


@pytest.mark.parametrize("name", ["linear", "task_arithmetic", "slerp", "karcher", "model_stock", "ties", "dare_ties"])
def test_a_large_merge_whose_loops_are_kept_does_without_numba(name, tmp_path):
    """Importing it takes half as long as copying a small model does."""
    models = [{"model": checkpoint(tmp_path / f"m{i}", i)} for i in range(1 if name == "slerp" else 2)]
    sets = {"weight": 0.5, "density": 0.3, "t": 0.4}
    parameters = {key: value for key, value in sets.items() if key in find_method(name).parameters}
    recipe = {"models": models, "merge_method": name, "parameters": parameters, "dtype": "bfloat16"}
    if name not in {"linear", "karcher"}:
        recipe["base_model"] = checkpoint(tmp_path / "base", 50)
    (tmp_path / "recipe.yml").write_text(json.dumps(recipe))
    command = [sys.executable, "-c", AGAIN, str(tmp_path / "recipe.yml"), str(tmp_path / "out")]
    environment = {**os.environ, "PLAIT_CACHE_DIR": str(tmp_path / "kept")}
    said = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout for _ in "ab"]
    assert said == ["True\n", "False\n"]
