#!/usr/bin/env python3
"""Measure plait against the speed of copying and against mergekit, in one run, and print the results as Markdown.

    make bench       (or: python benchmarks/bench.py --write)

Needs about 25 GB under --work: 9 GB of synthetic 1.1B checkpoints (made when absent), outputs, and what the other
measurements need. mergekit runs from an environment of its own (`make mergekit`), where there is one; its slow methods are run once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

from cases import CASES, Case
from extras import EXTRAS
from measure import Run, RunFailedError, middle, run
from report import Line, markdown
from synthetic import PRESETS, make_checkpoints

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SLOW = 120.0
"""Seconds after which one run of mergekit is enough, unless --mergekit-runs says otherwise."""
SEED = 1
MERGEKIT = ROOT / ".cache" / "mergekit-venv"
FAILED: list[RunFailedError] = []
T = TypeVar("T")


class Contest:
    """One method: its contenders, run in turns."""

    def __init__(self, case: Case, name: str, options: argparse.Namespace) -> None:
        self.case, self.name, self.options = case, name, options
        self.out = options.work / "out"
        self.log = options.work / "log.txt"
        self.right: dict[str, dict[str, float]] = {}
        recipe, seeded = options.work / f"{name}.yml", options.work / f"{name}.plait.yml"
        recipe.write_text(case.recipe(options.data))
        seeded.write_text(case.recipe(options.data, seed=SEED if case.method.startswith("dare") else None))
        inputs = [options.data / model for model in case.reads]
        self.commands: dict[str, list[str | Path]] = {
            "copy": [sys.executable, "-I", "-S", HERE / "copy_limit.py", self.out, *inputs],
            "plait": [options.python, "-m", "plait", "merge", seeded, self.out, "--quiet"],
        }
        if case.in_mergekit and not options.skip_mergekit:
            mergekit = options.mergekit / "bin" / "mergekit-yaml"
            self.commands["mergekit"] = [mergekit, recipe, self.out, "--quiet", "--random-seed", str(SEED)]
            self.commands["mergekit"] += ["--no-copy-tokenizer", "--no-write-model-card"]

    def measure(self) -> Line:
        """Run all contenders in turns, as often as each is wanted."""
        warm([self.options.data / model for model in self.case.reads])
        for who in ("copy", "plait"):
            self.once(who)
        taken: dict[str, list[Run]] = {who: [] for who in self.commands}
        for _ in range(self.options.runs):
            for who, runs in taken.items():
                if self.wanted(who, runs):
                    runs.append(self.once(who, judge=who != "copy" and who not in self.right))
                    print(f"  {self.name}: {who} {runs[-1].wall:.2f} s, {runs[-1].peak / 1e6:.0f} MB", flush=True)
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
            return True
        if self.options.mergekit_runs is not None:
            return len(runs) < self.options.mergekit_runs
        return runs[0].wall < SLOW

    def once(self, who: str, *, judge: bool = False) -> Run:
        """One run with nothing left to be written from the last one; counts right entries when `judge`."""
        shutil.rmtree(self.out, ignore_errors=True)
        os.sync()
        environment = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        taken = run(self.commands[who], self.log, environment)
        if judge and not self.case.method.startswith("dare") and not self.options.skip_accuracy:
            count = [sys.executable, str(HERE / "accuracy.py"), self.name, str(self.options.data), str(self.out)]
            done = subprocess.run(count, capture_output=True, text=True, check=True)
            self.right[who] = json.loads(done.stdout)
            print(f"  {self.name}: {who} has {self.right[who]['share']:.4%} right", flush=True)
        shutil.rmtree(self.out, ignore_errors=True)
        return taken


def weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def warm(folders: list[Path]) -> None:
    """Read all weights once, so that every contender finds them in the page cache."""
    buffer = bytearray(1 << 22)
    for folder in folders:
        for file in weights(folder):
            with file.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="checkpoints base, expert0, expert1, expert2; made when absent")
    parser.add_argument("--preset", choices=PRESETS, default="1b", help="size of the checkpoints that are made")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "bench", help="a folder on a local disk")
    parser.add_argument("--methods", nargs="*", choices=CASES, default=list(CASES), help="[default: all]")
    parser.add_argument("--extras", nargs="*", choices=EXTRAS, default=list(EXTRAS), help="[default: all]")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="interpreter that has plait, with or without its extras [default: this]",
    )
    parser.add_argument("--mergekit", type=Path, default=MERGEKIT, help="its environment")
    parser.add_argument("--mergekit-runs", type=int, help=f"[default: --runs; once where it takes over {SLOW:.0f} s]")
    parser.add_argument("--skip-mergekit", action="store_true")
    parser.add_argument("--skip-accuracy", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the results into benchmarks/RESULTS.md")
    return parser.parse_args()


def main() -> None:
    options = parse()
    options.work.mkdir(parents=True, exist_ok=True)
    if not options.skip_mergekit and not (options.mergekit / "bin" / "mergekit-yaml").exists():
        if options.mergekit != MERGEKIT:
            sys.exit(f"{options.mergekit} has no bin/mergekit-yaml")
        print("mergekit is not installed (`make mergekit`): plait is measured alone", file=sys.stderr)
        options.skip_mergekit = True
    if options.data is None:
        options.data = options.work / options.preset
        make_checkpoints(options.data, PRESETS[options.preset], 3)
    options.data = options.data.resolve()
    lines = []
    for name in options.methods:
        lines += attempt(Contest(CASES[name], name, options).measure)
        # Kept line by line: the whole takes hours, and may be cut short.
        (options.work / "lines.json").write_text(json.dumps([asdict(line) for line in lines], indent=1))
    plait = [options.python, "-m", "plait"]
    few = min(options.runs, 3)
    extras = [
        extra
        for name in options.extras
        for found in attempt(partial(EXTRAS[name], plait, options.work, few))
        for extra in found
    ]
    command = " ".join(["python", "benchmarks/bench.py", *shown_arguments()])
    mergekit = None if options.skip_mergekit else options.mergekit
    text = markdown(lines, extras, runs=options.runs, command=command, python=options.python, mergekit=mergekit)
    print(text)
    if options.write:
        (HERE / "RESULTS.md").write_text(text)
    if FAILED:
        sys.exit(f"{len(FAILED)} measurements failed and are left out")


def attempt(measure: Callable[[], T]) -> list[T]:
    """The result in a list, or an empty list where a command failed: the rest of an hour's work goes on."""
    try:
        return [measure()]
    except RunFailedError as error:
        print(f"FAILED: {error}", file=sys.stderr, flush=True)
        FAILED.append(error)
        return []


def shown_arguments() -> list[str]:
    """The arguments as given, without absolute paths, which mean nothing elsewhere."""
    return [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]


if __name__ == "__main__":
    main()
