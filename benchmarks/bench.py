#!/usr/bin/env python3
"""Measure plait against the speed of copying and against mergekit, and print the results as Markdown.

    make bench       (or: python benchmarks/bench.py --write)

Three tables: `merging`, eight methods with the accuracy of what they write; `library`, every method there is; `extras`,
planning, depth and start, and inputs that are not plain. Needs about 35 GB under --work: 9 GB of synthetic 1.1B checkpoints (made when absent),
outputs, and what the other measurements need. mergekit runs from an environment of its own (`make mergekit`), where
there is one; its slow methods are run once.

The library's measurements are kept in --results as they come, and only what is missing there is measured: the same
command goes on where it was cut short. A changed recipe, other inputs, and for plait's column a changed plait, are
measured anew. The extras' are kept under --work, the last of each. So the columns can be measured apart, in this order or another, but not at the same time:

    python benchmarks/bench.py --tables library --runs 3 --skip-mergekit
    python benchmarks/bench.py --tables library --only-mergekit --mergekit-runs 1 --mergekit-limit 900
    python benchmarks/bench.py --tables library --report --write
    python benchmarks/bench.py --tables extras --skip-mergekit --runs 3
    python benchmarks/bench.py --tables extras --skip-mergekit --report --write
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import library
from cases import CASES
from contest import SLOW, Contest, plait_command
from extras import EXTRAS, Extra, KeptExtras
from kept import Kept
from library_report import HEADING, library_section
from measure import RunFailedError
from report import Line, facts, machine, sections, with_sections
from synthetic import PRESETS, make_checkpoints

from plait.methods import method_names

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "RESULTS.md"
MERGEKIT = ROOT / ".cache" / "mergekit-venv"
TABLES = ("merging", "library", "extras")
FAILED: list[RunFailedError] = []
T = TypeVar("T")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="checkpoints base, expert0, expert1, expert2; made when absent")
    parser.add_argument("--preset", choices=PRESETS, default="1b", help="size of the checkpoints that are made")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "bench", help="a folder on a local disk")
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=list(TABLES), help="[default: all]")
    parser.add_argument("--methods", nargs="*", help="of the first two tables, by spaces or commas [default: all]")
    parser.add_argument("--extras", nargs="*", choices=EXTRAS, default=list(EXTRAS), help="[default: all]")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--python",
        default=sys.executable,
        help="interpreter that has plait, with or without its extras [default: this]",
    )
    parser.add_argument("--mergekit", type=Path, default=MERGEKIT, help="its environment")
    parser.add_argument("--mergekit-runs", type=int, help=f"[default: --runs; once where it takes over {SLOW:.0f} s]")
    parser.add_argument(
        "--mergekit-limit", type=float, default=0, help="seconds after which it is stopped, 0 for never"
    )
    parser.add_argument(
        "--mergekit-from", type=Path, action="append", default=[], help="another --results of this machine"
    )
    parser.add_argument("--skip-mergekit", action="store_true")
    parser.add_argument("--only-mergekit", action="store_true", help="no copy limit and plait in the library's table")
    parser.add_argument("--skip-accuracy", action="store_true")
    parser.add_argument(
        "--results", type=Path, help="where the library's measurements are kept [default: under --work]"
    )
    parser.add_argument(
        "--report", action="store_true", help="measure nothing, tell what is kept of library and extras"
    )
    parser.add_argument(
        "--write", action="store_true", help=f"put what is told into {RESULTS.name}, section by section"
    )
    options = parser.parse_args()
    known = sorted({*CASES, *method_names()})
    options.methods = [name for word in options.methods or known for name in word.split(",") if name]
    if unknown := [name for name in options.methods if name not in known]:
        parser.error(f"--methods: no {', '.join(unknown)}; there are {', '.join(known)}")
    return options


def prepare(options: argparse.Namespace) -> None:
    """See that the folders, mergekit and the checkpoints are there."""
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    options.results = options.results or options.work / "library.jsonl"
    if not options.skip_mergekit and not (options.mergekit / "bin" / "mergekit-yaml").exists():
        if options.mergekit != MERGEKIT or options.only_mergekit:
            sys.exit(f"{options.mergekit} has no bin/mergekit-yaml")
        print("mergekit is not installed (`make mergekit`): plait is measured alone", file=sys.stderr)
        options.skip_mergekit = True
    if options.data is None:
        options.data = options.work / options.preset
        if not options.report and set(options.tables) != {"extras"}:
            make_checkpoints(options.data, PRESETS[options.preset], 3)
    options.data = options.data.resolve()


def main() -> None:
    options = parse()
    prepare(options)
    found: dict[str, str] = {}
    told = {"command": command(), "python": options.python, "mergekit": peer(options)}
    lines = merging(options) if "merging" in options.tables and not options.report else []
    extras = others(options) if "extras" in options.tables else []
    found = sections(lines, extras, runs=options.runs, **told)
    if "library" in options.tables:
        found |= methods(options)
    print("".join(found.values()))
    if options.write:
        RESULTS.write_text(with_sections(RESULTS.read_text() if RESULTS.exists() else "", found))
    if FAILED:
        sys.exit(f"{len(FAILED)} measurements failed and are left out")


def merging(options: argparse.Namespace) -> list[Line]:
    """The first table: the methods of cases.py."""
    lines: list[Line] = []
    for name in [name for name in CASES if name in options.methods]:
        lines += attempt(Contest(CASES[name], name, options).measure)
        # Kept line by line: the whole takes hours, and may be cut short.
        (options.work / "lines.json").write_text(json.dumps([asdict(line) for line in lines], indent=1))
    return lines


def methods(options: argparse.Namespace) -> dict[str, str]:
    """The second table: every method of the library, of which there are measurements."""
    kept = Kept(options.results, machine(), options.mergekit_from)
    if not options.report:
        told = facts(options.python, peer(options))
        kept.begin(command(), [fact for fact in told if not (options.only_mergekit and fact.startswith("- plait"))])
        builds = library.Builds(options)
        for name in [name for name in method_names() if name in options.methods]:
            attempt(partial(library.measure, name, options, kept, builds))
    lines = library.lines(options.data, kept)
    if not lines:
        print(f"{options.results} has no method's copy limit and plait yet: no table", file=sys.stderr)
        return {}
    return {HEADING: library_section(lines)}


def others(options: argparse.Namespace) -> list[Extra]:
    plait, few = [str(word) for word in plait_command(options.python)], min(options.runs, 3)
    kept = KeptExtras(options.work / "extras.json")
    for name in [] if options.report else options.extras:
        for measured in attempt(partial(EXTRAS[name], plait, options.work, few)):
            kept.put(name, measured)
    return kept.extras()


def peer(options: argparse.Namespace) -> Path | None:
    return None if options.skip_mergekit else options.mergekit


def attempt(measure: Callable[[], T]) -> list[T]:
    """The result in a list, or an empty list where a command failed: the rest of an hour's work goes on."""
    try:
        return [measure()]
    except RunFailedError as error:
        print(f"FAILED: {error}", file=sys.stderr, flush=True)
        FAILED.append(error)
        return []


def command() -> str:
    return " ".join(["python", "benchmarks/bench.py", *shown_arguments(sys.argv[1:])])


def shown_arguments(given: Sequence[str]) -> list[str]:
    """The arguments as given, without absolute paths, which mean nothing elsewhere."""
    return [Path(word).name if word.startswith("/") else word for word in given]


if __name__ == "__main__":
    main()
