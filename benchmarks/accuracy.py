#!/usr/bin/env python3
"""Count how many entries of a merged checkpoint are the correct rounding of a float64 computation.

    python benchmarks/accuracy.py CASE DATA OUTPUT

CASE is a name of benchmarks/cases.py, DATA the folder of the inputs. Some tensors of the first, middle and last layer
are compared whole. Prints JSON: the share of entries that are right, how many were compared, and the largest error in
units of the last place. A process of its own, since it holds gigabytes.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import references
from cases import CASES, Case

PARTS = (
    "input_layernorm.weight",
    "self_attn.q_proj.weight",
    "self_attn.k_proj.weight",
    "mlp.down_proj.weight",
)


class Weights:
    """The bfloat16 tensors of a folder of safetensors, read one at a time."""

    def __init__(self, folder: Path) -> None:
        self.at: dict[str, tuple[Path, int, tuple[int, ...], str]] = {}
        for file in sorted(folder.glob("*.safetensors")):
            with file.open("rb") as stream:
                (length,) = struct.unpack("<Q", stream.read(8))
                header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            for name, about in header.items():
                start = 8 + length + about["data_offsets"][0]
                self.at[name] = (file, start, tuple(about["shape"]), about["dtype"])

    def read(self, name: str, dtype: type = np.float64) -> np.ndarray:
        file, start, shape, stored = self.at[name]
        if stored != "BF16":
            raise SystemExit(f"{file}: {name} is {stored}, not BF16")
        bits = np.fromfile(file, np.uint16, int(np.prod(shape)), offset=start)
        return bits.view(ml_dtypes.bfloat16).astype(dtype).reshape(shape)


def sampled(names: list[str]) -> list[str]:
    """The tensors that are compared: four kinds in three layers, and the final norm."""
    layers = 1 + max(int(name.split(".")[2]) for name in names if name.startswith("model.layers."))
    chosen = [f"model.layers.{i}.{part}" for i in sorted({0, layers // 2, layers - 1}) for part in PARTS]
    return [*chosen, "model.norm.weight"]


def deltas(expert: Weights, base: Weights) -> Iterator[np.ndarray]:
    for name in expert.at:
        yield expert.read(name, np.float32) - base.read(name, np.float32)


def answers(case: Case, inputs: dict[str, Weights], name: str, limits: list[float] | None) -> Iterator[np.ndarray]:
    """Every right result for one tensor, in float64; more than one only where a method leaves a choice open."""
    models = [inputs[model].read(name) for model in case.models]
    base = inputs[case.base].read(name) if case.base else None
    if case.method == "linear":
        yield references.linear(models, case.weights)
    elif case.method == "slerp":
        yield references.slerp(models[0], models[1], float(str(case.settings["t"])))
    elif case.method == "karcher":
        yield references.karcher(models)
    elif base is None:
        raise SystemExit(f"{case.method} has no reference")
    elif case.method == "task_arithmetic":
        yield references.task_arithmetic(base, models, case.weights)
    elif case.method == "model_stock":
        yield references.model_stock(base, models)
    else:
        own = limits or [references.threshold(model - base, case.density or 1.0) for model in models]
        yield from references.ties_answers(base, models, case.weights, own)


def ulps(actual: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """How far apart, in steps between neighbouring bfloat16 numbers of the exact value's size."""
    return np.abs(actual - exact) / np.ldexp(1.0, np.frexp(exact)[1] - 8)


def count(case: Case, data: Path, output: Path) -> dict[str, float]:
    inputs = {model: Weights(data / model) for model in case.reads}
    merged = Weights(output)
    limits = None
    if case.plait_only.get("scope") == "model":
        base = inputs[str(case.base)]
        limits = [
            references.model_thresholds(partial(deltas, inputs[model], base), case.density or 1.0)
            for model in case.models
        ]
    right = entries = 0
    worst = 0.0
    for name in sampled(list(merged.at)):
        actual = merged.read(name)
        good = np.zeros(actual.shape, bool)
        least = np.full(actual.shape, np.inf)
        for exact in answers(case, inputs, name, limits):
            good |= references.to_bfloat16(exact) == actual
            least = np.minimum(least, ulps(actual, exact))
        right += int(good.sum())
        entries += actual.size
        worst = max(worst, float(least.max()))
    return {"share": right / entries, "entries": entries, "worst_ulps": worst}


if __name__ == "__main__":
    print(json.dumps(count(CASES[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3]))))
