#!/usr/bin/env python3
"""Run mergekit 0.1.5 on the tiny models of tests/parity and keep what it wrote as tests/parity/golden.npz.

    python benchmarks/mergekit_golden.py [--mergekit .cache/mergekit-venv] [--only NAME ...]

Needed only when a recipe of tests/parity/recipes is added or changed. Run it with the interpreter that has plait's
dependencies; mergekit runs as a command of its own environment. Every tensor of every output is kept as two sums;
norms, embeddings, heads and the key projections (at most 16 rows of the large ones) are kept as they are.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
PARITY = ROOT / "tests" / "parity"
MERGEKIT_SEED = "7"


def load_inputs() -> ModuleType:
    """The generator of the inputs, which lives beside the tests."""
    spec = importlib.util.spec_from_file_location("parity_inputs", PARITY / "conftest.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{PARITY / 'conftest.py'} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_mergekit(command: Path, text: str, folder: Path) -> dict[str, np.ndarray]:
    """Merge one recipe; returns every tensor of the output."""
    recipe, out = folder / "recipe.yml", folder / "out"
    recipe.write_text(text)
    quiet = ["--no-write-model-card", "--no-copy-tokenizer", "--quiet", "--random-seed", MERGEKIT_SEED]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([command, recipe, out, *quiet], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"mergekit failed on\n{text}\n{done.stderr[-3000:]}")
    return load_file(out / "model.safetensors") | {"": config_layers(out)}


def config_layers(out: Path) -> np.ndarray:
    """The number of layers that the output's config says."""
    return np.array(json.loads((out / "config.json").read_text())["num_hidden_layers"])


def condense(inputs: ModuleType, recipe: str, output: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict]:
    """What is kept of one output: arrays by "recipe/tensor", and shape and sums of every tensor."""
    layers = int(output.pop(""))
    arrays = {f"{recipe}/{name}": inputs.kept_rows(value) for name, value in output.items() if inputs.is_kept(name)}
    facts = {
        name: [list(value.shape), float(value.sum(dtype=np.float64)), float(np.abs(value).sum(dtype=np.float64))]
        for name, value in sorted(output.items())
    }
    return arrays, {"num_hidden_layers": layers, "tensors": facts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", type=Path, default=ROOT / ".cache" / "mergekit-venv", help="its environment")
    parser.add_argument("--only", nargs="*", help="names of recipes; nothing is saved")
    options = parser.parse_args()
    command = options.mergekit / "bin" / "mergekit-yaml"
    if not command.exists():
        raise SystemExit(
            f"{command} is not there: make the environment with `make mergekit`, or name one by --mergekit"
        )
    inputs = load_inputs()
    arrays: dict[str, np.ndarray] = {}
    facts: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch:
        models = inputs.make_models(Path(scratch) / "models")
        for recipe in sorted((PARITY / "recipes").glob("*.yml")):
            if options.only and recipe.stem not in options.only:
                continue
            text = recipe.read_text()
            for name, folder in models.items():
                text = text.replace("{" + name + "}", str(folder))
            folder = Path(scratch) / recipe.stem
            folder.mkdir()
            kept, facts[recipe.stem] = condense(inputs, recipe.stem, run_mergekit(command, text, folder))
            arrays |= kept
            print(f"{recipe.stem}: {len(kept)} tensors kept", flush=True)
        meta = {"mergekit": "0.1.5", "inputs_sha256": inputs.fingerprint(models), "recipes": facts}
    if options.only:
        return
    meta_bytes = np.frombuffer(json.dumps(meta, separators=(",", ":")).encode(), np.uint8)
    np.savez_compressed(PARITY / "golden.npz", meta=meta_bytes, **arrays)
    print(f"golden.npz: {(PARITY / 'golden.npz').stat().st_size / 1e3:.0f} kB, numpy {np.__version__}, {sys.version}")


if __name__ == "__main__":
    main()
