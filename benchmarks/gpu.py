#!/usr/bin/env python3
"""Merge on a GPU and on the CPU of the same machine: times, and whether both wrote the same bytes.

    python benchmarks/gpu.py --data DIR [--device cuda] [--runs 3] [--write]

DIR holds base, expert0, expert1 and expert2 (see synthetic.py). Every merge is run in this process after one to warm
up, so compiling and loading torch are left out; the median is told.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from pathlib import Path
from statistics import median

import xxhash
from cases import CASES

import plait

RESULTS = Path(__file__).with_name("RESULTS-GPU.md")


def digest(folder: Path) -> str:
    state = xxhash.xxh3_128()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            while part := stream.read(1 << 24):
                state.update(part)
    return state.hexdigest()


def timed(recipe: Path, out: Path, device: str, runs: int) -> tuple[float, str]:
    seconds = []
    for _ in range(runs + 1):
        shutil.rmtree(out, ignore_errors=True)
        seconds.append(plait.merge(recipe, out, device=device, memory=64 << 30, verify=False).seconds)
    found = digest(out)
    shutil.rmtree(out)
    return median(seconds[1:]), found


def machine(device: str) -> list[str]:
    import torch

    name = torch.cuda.get_device_name() if device.startswith("cuda") else "none"
    return [
        f"- GPU: {name}; torch {torch.__version__}",
        f"- {os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}",
        f"- plait {plait.__version__}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--write", action="store_true", help=f"put the results into {RESULTS.name}")
    options = parser.parse_args()
    work = options.data / "work"
    work.mkdir(exist_ok=True)
    rows, same = [], True
    for name in options.methods:
        recipe = work / f"{name}.yml"
        recipe.write_text(CASES[name].recipe(options.data, seed=1))
        cpu, on_cpu = timed(recipe, work / "cpu", "cpu", options.runs)
        gpu, on_gpu = timed(recipe, work / "gpu", options.device, options.runs)
        same &= on_cpu == on_gpu
        rows.append(f"| {CASES[name].title} | {cpu:.2f} s | {gpu:.2f} s | {'yes' if on_cpu == on_gpu else 'NO'} |")
        print(rows[-1], flush=True)
    head = ["| method | CPU | GPU | same bytes |", "|---|--:|--:|---|"]
    command = f"python benchmarks/gpu.py --data DIR --runs {options.runs} --write"
    text = ["# Measured on a GPU", "", f"Made by `{command}`.", "", *machine(options.device), "", *head, *rows, ""]
    if options.write:
        RESULTS.write_text("\n".join(text))
    print("\n".join(text))
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
