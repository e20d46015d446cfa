"""What is measured beside merging a large model: planning, memory against depth, and the start."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from measure import Run, middle, run
from synthetic import PRESETS, make_checkpoints

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EXTRAS", "Extra"]


@dataclass(frozen=True)
class Extra:
    """One line of the last table; the bars are what the project promises, 0 where it promises nothing."""

    title: str
    run: Run
    runs: int
    bar_seconds: float = 0
    bar_bytes: int = 0


def ties_recipe(data: Path, experts: int, file: Path) -> Path:
    models = [
        {"model": str(data / f"expert{i}"), "parameters": {"weight": 1.0, "density": 0.5}} for i in range(experts)
    ]
    whole = {"merge_method": "ties", "base_model": str(data / "base"), "models": models, "dtype": "bfloat16"}
    file.write_text(yaml.safe_dump(whole))
    return file


def planning(plait: Sequence[str], work: Path, runs: int) -> list[Extra]:
    """`plait plan` for a 405B Llama with eight experts: 7.3 TB of headers' worth, no data."""
    data = work / "405b"
    make_checkpoints(data, PRESETS["405b"], 8, sparse=True, shard_bytes=5 * 10**9)
    recipe = ties_recipe(data, 8, work / "plan.yml")
    taken = [run([*plait, "plan", recipe], work / "plan.log") for _ in range(runs)]
    return [Extra("`plait plan`, TIES of 8 experts on a 405B base", middle(taken), runs, 5, 500 * 10**6)]


def depth(plait: Sequence[str], work: Path, runs: int) -> list[Extra]:
    """Peak memory of a TIES merge of two experts, for the same width at 8 and at 80 layers."""
    out = []
    for layers in (8, 80):
        data = work / f"s{layers}"
        make_checkpoints(data, replace(PRESETS["s"], layers=layers), 2, quick=True)
        recipe = ties_recipe(data, 2, work / f"depth{layers}.yml")
        taken = []
        for _ in range(runs):
            taken.append(run([*plait, "merge", recipe, work / "depth-out", "--quiet"], work / "depth.log"))
            shutil.rmtree(work / "depth-out")
        out.append(Extra(f"TIES of 2 experts, hidden size 1024, {layers} layers", middle(taken), runs))
    return out


def start(plait: Sequence[str], work: Path, runs: int) -> list[Extra]:
    """The help, and a tiny merge with nothing compiled yet and with everything compiled."""
    helped = [run([*plait, "--help"], work / "help.log") for _ in range(runs)]
    data = work / "start"
    make_checkpoints(data, PRESETS["xs"], 2)
    recipe = ties_recipe(data, 2, work / "start.yml")
    cache = work / "numba"
    cold, warm = [], []
    for _ in range(runs):
        shutil.rmtree(cache, ignore_errors=True)
        for taken in (cold, warm):
            command = [*plait, "merge", recipe, work / "start-out", "--quiet"]
            taken.append(run(command, work / "start.log", {"NUMBA_CACHE_DIR": str(cache)}))
            shutil.rmtree(work / "start-out")
    return [
        Extra("`plait --help`", middle(helped), runs, 0.3),
        Extra("TIES of 2 experts of 5 M parameters, nothing compiled yet", middle(cold), runs),
        Extra("the same, compiled by an earlier run", middle(warm), runs),
    ]


EXTRAS = {"plan": planning, "depth": depth, "start": start}
