#!/usr/bin/env python3
"""Time every method and write plait/methods/costs.json and docs/cost.png.

    python benchmarks/method_costs.py                 all methods; some minutes
    python benchmarks/method_costs.py ties della      these alone, the others' figures stay

A figure is what a whole merge takes in nanoseconds of processor time for each parameter of the output: reading bfloat16
models from memory, merging on one thread, hashing and writing. What does not depend on size is taken off: it is the
difference between a large model and a small one. Parameters are the minimal recipe's, and `density: 0.5`.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import yaml
from safetensors.numpy import save_file

import plait
from plait.methods import Method, find_method, method_names
from plait.methods.facts import LOCALITIES, example

ROOT = Path(__file__).parents[1]
COSTS = ROOT / "plait" / "methods" / "costs.json"
PLOT = ROOT / "docs" / "cost.png"
COUNTS = (2, 4, 8, 16)
COLUMNS, ROWS = 2048, {"large": 2048, "small": 128}
REPEATS = 3
TENSOR = "model.layers.0.mlp.up_proj.weight"


def models(folder: Path) -> None:
    """Write a base and sixteen models of each size: weights of deviation 0.02, deltas of 0.002, a tenth of them zero."""
    for size, rows in ROWS.items():
        base = np.random.default_rng(0).standard_normal((rows, COLUMNS), np.float32) * 0.02
        for i in range(COUNTS[-1] + 1):
            draw = np.random.default_rng(i)
            delta = 0.002 * draw.standard_normal(base.shape, np.float32) * (draw.random(base.shape) > 0.1)
            weights = (base if i == 0 else base + delta).astype(ml_dtypes.bfloat16)
            place = folder / size / f"m{i}"
            place.mkdir(parents=True)
            save_file({TENSOR: weights}, place / "model.safetensors")
            (place / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 1}')


def counts(method: Method) -> Sequence[int]:
    """The numbers of models to time it with: those of the plot, or the only one that it takes."""
    low, high = method.min_models, method.max_models or COUNTS[-1]
    return [count for count in COUNTS if low <= count <= high] or [high]


def recipe(method: Method, count: int) -> str:
    written = yaml.safe_load(example(method, tuple(f"m{i}" for i in range(1, 17)), "m0", count))
    if "density" in method.parameters:
        written.setdefault("parameters", {})["density"] = 0.5
    return yaml.safe_dump(written)


def seconds(folder: Path, text: str) -> float:
    """The least processor time of some merges."""
    (folder / "recipe.yml").write_text(text)
    taken = []
    for _ in range(REPEATS):
        start = time.process_time()
        plait.merge(folder / "recipe.yml", folder / "out", threads=1, memory=4 << 30, verify=False, overwrite=True)
        taken.append(time.process_time() - start)
    return min(taken)


def measure(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, dict[int, float]]]:
    """Yield each method's nanoseconds a parameter by number of models."""
    parameters = (ROWS["large"] - ROWS["small"]) * COLUMNS
    for name in names:
        method, found = find_method(name), {}
        for count in counts(method):
            text = recipe(method, count)
            large, small = (seconds(folder / size, text) for size in ROWS)
            found[count] = round((large - small) / parameters * 1e9, 2)
        yield name, found


def write(ns: Mapping[str, Mapping[str, float]]) -> None:
    about = f"ns of processor time a parameter, bfloat16, one thread of {machine()}, Python {platform.python_version()}"
    COSTS.write_text(json.dumps({"about": about, "ns": dict(sorted(ns.items()))}, indent=1) + "\n")


def machine() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine()


def plot(ns: Mapping[str, Mapping[str, float]]) -> None:
    """Draw cost by number of models, a panel for each locality that has methods for several numbers."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    lines: dict[str, list[str]] = {}
    for name, found in ns.items():
        if len(found) > 1:
            lines.setdefault(find_method(name).locality, []).append(name)
    shown = [locality for locality in LOCALITIES if locality in lines]
    figure, panels = plt.subplots(1, len(shown), figsize=(4.2 * len(shown), 5), squeeze=False, layout="constrained")
    for panel, locality in zip(panels[0], shown, strict=True):
        draw(panel, locality, {name: ns[name] for name in lines[locality]})
    panels[0][0].set_ylabel("ns a parameter")
    figure.savefig(PLOT, dpi=80, metadata={"Software": None})


def draw(panel: Any, locality: str, ns: Mapping[str, Mapping[str, float]]) -> None:
    top = max(max(found.values()) for found in ns.values())
    last = -1.0
    for name, found in sorted(ns.items(), key=lambda item: item[1][max(item[1], key=int)]):
        (line,) = panel.plot([int(count) for count in found], list(found.values()), marker="o", markersize=3, lw=1)
        end = max(found, key=int)
        last = max(last + top / 28, found[end])  # labels one above the other
        panel.annotate(name, (int(end), last), (4, -3), textcoords="offset points", fontsize=7, color=line.get_color())
    panel.set(title=locality, xlabel="models", xticks=COUNTS, xlim=(0, 24), ylim=(0, 1.02 * max(top, last)))
    panel.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    parser.add_argument("--plot-only", action="store_true", help="draw what was measured before")
    given = parser.parse_args()
    known = json.loads(COSTS.read_text())["ns"] if COSTS.exists() else {}
    ns = {name: known[name] for name in method_names() if name in known}
    memory = Path("/dev/shm")  # noqa: S108 - files in memory, so that no disk is measured
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as made:
        if not given.plot_only:
            models(Path(made))
            print(f"{'':22}" + "".join(f"{count:>8}" for count in COUNTS) + "  models")
            for name, found in measure(Path(made), given.methods or method_names()):
                ns[name] = {str(count): value for count, value in found.items()}
                shown = (f"{found[count]:8.2f}" if count in found else " " * 8 for count in COUNTS)
                alone = f"  {found}" if not set(found) & set(COUNTS) else ""
                print(f"{name:22}" + "".join(shown) + alone, flush=True)
                write(ns)
    plot(ns)


if __name__ == "__main__":
    sys.exit(main())
