"""Pain 6: memory that grows with the model, one core at work, killed without a message."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

resource = pytest.importorskip("resource")
ROWS, COLUMNS = 4096, 1024  # 16 MB each, in float32
MEASURED = """\
import resource, sys
import plait
plait.merge(sys.argv[1], sys.argv[2], threads=2, memory=64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_memory_does_not_grow_with_the_model(tmp_path):
    """mk#549: ">64GB RAM" for 7B; mk#107: the machine goes down."""

    def peak(size: str, rows: int) -> int:
        for seed, name in enumerate(("base", "a", "b", "c")):
            folder = tmp_path / size / name
            folder.mkdir(parents=True)
            draw = np.random.default_rng(seed).standard_normal((rows, COLUMNS), np.float32)
            save_file({f"layers.{i}.w": draw for i in range(3)}, folder / "model.safetensors")
            (folder / "config.json").write_text("{}")
        models = ", ".join(f"{{model: {tmp_path / size / name}}}" for name in "abc")
        text = f"models: [{models}]\nmerge_method: ties\nbase_model: {tmp_path / size / 'base'}\n"
        (tmp_path / f"{size}.yml").write_text(text + "parameters: {weight: 1, density: 0.3}\n")
        arguments = [sys.executable, "-c", MEASURED, tmp_path / f"{size}.yml", tmp_path / f"{size}-out"]
        done = subprocess.run(arguments, check=True, capture_output=True, text=True)
        return int(done.stdout) * 1024

    grown = peak("large", ROWS) - peak("small", 8)
    assert grown < 48 << 20, f"{grown / 2**20:.0f} MiB more for inputs of 192 MB and a limit of 32 MiB"


def test_the_plan_says_what_it_takes_and_too_little_is_refused(cli, model):
    for seed, name in enumerate("ab"):
        model(name, seed=seed)
    text = "models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 1}\n"
    data = json.loads(cli("plan", "--json", "--threads", "2", says=text).out)
    assert 0 < data["peak_memory"] < 1 << 30
    assert data["bytes_read"] == 2 * sum(one["bytes_written"] for one in data["tensors"])
    done = cli("merge", "out", "--memory", "1k", says=text)
    assert done.code == 2
    assert "more than --memory 0 MiB allows. Raise --memory." in done.err
