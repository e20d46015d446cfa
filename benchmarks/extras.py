"""What is measured beside merging plain models: planning, memory against depth, the start, and inputs that are not plain."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from files import warm, weights
from inputs import KINDS, make_inputs, write_recipe
from measure import Run, middle, run
from synthetic import PRESETS, make_checkpoints

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["EXTRAS", "Extra", "KeptExtras"]

HERE = Path(__file__).resolve().parent
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True)
class Extra:
    """One line of the last tables; the bars are what the project promises, 0 where it promises nothing."""

    title: str
    run: Run
    runs: int
    bar_seconds: float = 0
    bar_bytes: int = 0
    copy: Run | None = None
    """The copy limit, of inputs that are not plain."""
    bytes_read: int = 0
    bytes_written: int = 0


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


def inputs(name: str, plait: Sequence[str], work: Path, runs: int) -> list[Extra]:
    """A merge that adapts, dequantises or aligns, and the copy limit of the same bytes, in turns."""
    kind, data, out = KINDS[name], work / "inputs", work / "inputs-out"
    make_inputs(data, kind.reads)
    folders = [data / one for one in kind.reads]
    warm(folders)
    recipe = write_recipe(kind, data, work / f"{name}.yml")
    commands = {
        "copy": [sys.executable, "-I", "-S", HERE / "copy_limit.py", out, *folders],
        "plait": [*plait, "merge", recipe, out, "--quiet"],
    }
    taken: dict[str, list[Run]] = {who: [] for who in commands}
    shutil.rmtree(out, ignore_errors=True)
    run(commands["plait"], work / "inputs.log", OFFLINE)  # it may compile
    for who in [*commands] * runs:
        shutil.rmtree(out, ignore_errors=True)
        os.sync()
        taken[who].append(run(commands[who], work / "inputs.log", OFFLINE))
        print(f"  {name}: {who} {taken[who][-1].wall:.2f} s, {taken[who][-1].peak / 1e6:.0f} MB", flush=True)
    shutil.rmtree(out, ignore_errors=True)
    sizes = [sum(file.stat().st_size for file in weights(folder)) for folder in folders]
    return [Extra(kind.title, middle(taken["plait"]), runs, 0, 0, middle(taken["copy"]), sum(sizes), sizes[0])]


EXTRAS = {"plan": planning, "depth": depth, "start": start, **{name: partial(inputs, name) for name in KINDS}}


class KeptExtras:
    """What was measured, in a file, so that it can be told later and apart."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: dict[str, list[dict[str, Any]]] = json.loads(file.read_text()) if file.exists() else {}

    def put(self, name: str, measured: Sequence[Extra]) -> None:
        """Keep what was measured under that name, in place of an older measurement."""
        self.found[name] = [asdict(extra) for extra in measured]
        self.file.write_text(json.dumps(self.found, indent=1))

    def extras(self) -> list[Extra]:
        """All that is kept, in the order of the tables."""
        made = [told for name in EXTRAS for told in self.found.get(name, [])]
        runs = [{key: Run(**told[key]) if told[key] else None for key in ("run", "copy")} for told in made]
        return [Extra(**told | both) for told, both in zip(made, runs, strict=True)]
