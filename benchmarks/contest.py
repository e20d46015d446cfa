"""One merge and its contenders: the copy limit, plait and mergekit, each run as a whole process, in turns."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cases import Case
from files import warm, weights
from measure import Run, middle, run
from report import Line

__all__ = ["Contest", "plait_command"]

HERE = Path(__file__).resolve().parent
SLOW = 120.0
"""Seconds after which one run of mergekit is enough, unless --mergekit-runs says otherwise."""
SEED = 1


def plait_command(python: str) -> list[str | Path]:
    """How to start the plait that an interpreter has; -I, so that a checkout in the current folder is not taken."""
    return [python, "-I", "-m", "plait"]


class Contest:
    """One method: its contenders, and how each of them is started."""

    def __init__(self, case: Case, name: str, options: argparse.Namespace) -> None:
        self.case, self.name, self.options = case, name, options
        self.out = options.work / "out"
        self.log = options.work / "log.txt"
        self.right: dict[str, dict[str, float]] = {}
        recipe, seeded = options.work / f"{name}.yml", self.seeded_recipe(options.data, "plait")
        recipe.write_text(case.recipe(options.data))
        inputs = [options.data / model for model in case.reads]
        self.commands: dict[str, list[str | Path]] = {
            "copy": [sys.executable, "-I", "-S", HERE / "copy_limit.py", self.out, *inputs],
            "plait": self.merge(seeded),
        }
        if case.in_mergekit and not options.skip_mergekit:
            mergekit = options.mergekit / "bin" / "mergekit-yaml"
            self.commands["mergekit"] = [mergekit, recipe, self.out, "--quiet", "--random-seed", str(SEED)]
            self.commands["mergekit"] += ["--no-copy-tokenizer", "--no-write-model-card"]

    def seeded_recipe(self, data: Path, what: str) -> Path:
        """Write the recipe for plait, of the models in `data`."""
        file: Path = self.options.work / f"{self.name}.{what}.yml"
        file.write_text(self.case.recipe(data, seed=SEED if self.case.random else None))
        return file

    def merge(self, recipe: Path) -> list[str | Path]:
        return [*plait_command(self.options.python), "merge", recipe, self.out, "--quiet"]

    def measure(self) -> Line:
        """Run all contenders in turns, as often as each is wanted."""
        self.warm()
        for who in ("copy", "plait"):
            self.once(who)
        taken: dict[str, list[Run]] = {who: [] for who in self.commands}
        for _ in range(self.options.runs):
            for who, runs in taken.items():
                if self.wanted(who, runs):
                    runs.append(self.once(who, judge=who != "copy" and who not in self.right))
        read = sum(file.stat().st_size for model in self.case.reads for file in weights(self.options.data / model))
        wrote = sum(file.stat().st_size for file in weights(self.options.data / self.case.reads[0]))
        theirs = taken.get("mergekit", [])
        return Line(
            self.case.title,
            middle(taken["copy"]),
            middle(taken["plait"]),
            read,
            wrote,
            middle(theirs) if theirs else None,
            len(theirs),
            self.right,
        )

    def wanted(self, who: str, runs: list[Run]) -> bool:
        """Whether this contender has another turn."""
        if who != "mergekit" or not runs:
            return len(runs) < self.options.runs
        if self.options.mergekit_runs is not None:
            return len(runs) < self.options.mergekit_runs
        return len(runs) < self.options.runs and runs[0].wall < SLOW and not runs[0].stopped

    def once(self, who: str, *, judge: bool = False) -> Run:
        """One run with nothing left to be written from the last one; counts right entries when `judge`."""
        taken = self.started(self.commands[who], self.options.mergekit_limit if who == "mergekit" else 0)
        said = "stopped after " if taken.stopped else ""
        print(f"  {self.name}: {who} {said}{taken.wall:.2f} s, {taken.peak / 1e6:.0f} MB", flush=True)
        if judge and not (self.case.random or self.options.skip_accuracy or taken.stopped):
            count = [sys.executable, str(HERE / "accuracy.py"), self.name, str(self.options.data), str(self.out)]
            done = subprocess.run(count, capture_output=True, text=True, check=True)
            self.right[who] = json.loads(done.stdout)
            print(f"  {self.name}: {who} has {self.right[who]['share']:.4%} right", flush=True)
        shutil.rmtree(self.out, ignore_errors=True)
        return taken

    def started(self, command: list[str | Path], limit: float = 0) -> Run:
        shutil.rmtree(self.out, ignore_errors=True)
        os.sync()
        return run(command, self.log, {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}, limit)

    def warm(self) -> None:
        warm([self.options.data / model for model in self.case.reads])
