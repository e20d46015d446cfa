"""Every method of the library beside the copy limit of its own inputs and, where it has the method, mergekit.

Measurements are kept as they come (kept.py), and what is kept is not measured again.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cases import Case
from contest import Contest
from files import weights
from kept import Kept
from library_cases import bar, library_cases, locality, words
from library_report import LibraryLine
from measure import middle
from synthetic import PRESETS, make_checkpoints

__all__ = ["Builds", "lines", "measure"]


class Builds:
    """What tells one version of a contender from another."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.plait = _sources(options.python)
        self.mergekit = "" if options.skip_mergekit else _version(options.mergekit / "bin" / "python", "mergekit")

    def of(self, who: str) -> str:
        return self.mergekit if who == "mergekit" else self.plait


def measure(name: str, options: argparse.Namespace, kept: Kept, builds: Builds) -> None:
    """Run in turns what is still wanted of one method's contenders, and keep it."""
    case = library_cases()[name]
    contest, told = Contest(case, name, options), recipe_key(case, options.data)
    contenders = ["mergekit"] if options.only_mergekit else ["copy", "plait", "mergekit"]
    contenders = [who for who in contenders if who in contest.commands]
    taken = {who: [one.run for one in kept.find(name, who, told, builds.of(who))] for who in contenders}
    limit = options.mergekit_limit  # what was stopped earlier than this is given its time
    taken = {who: [run for run in runs if not run.stopped or 0 < limit <= run.wall] for who, runs in taken.items()}
    ready = False
    for turn in range(options.runs):
        for who, runs in taken.items():
            if len(runs) > turn or not contest.wanted(who, runs):
                continue
            if not ready:
                _prepare(contest, contenders)
                ready = True
            runs.append(contest.once(who))
            kept.add(name, who, told, builds.of(who), runs[-1])


def _prepare(contest: Contest, contenders: Sequence[str]) -> None:
    """Have the inputs in the page cache, and plait's kernels compiled, by the same merge of tiny models."""
    contest.warm()
    if "plait" in contenders:
        tiny = contest.options.work / "tiny"
        make_checkpoints(tiny, PRESETS["xs"], 3)
        contest.started(contest.merge(contest.seeded_recipe(tiny, "tiny")))


def recipe_key(case: Case, data: Path) -> str:
    """Tell recipe and inputs in a few letters, whatever folder they are in."""
    sizes = [file.stat().st_size for model in case.reads for file in weights(data / model)]
    return hashlib.sha256(f"{case.recipe(Path())}{sizes}".encode()).hexdigest()[:12]


def lines(data: Path, kept: Kept) -> list[LibraryLine]:
    """What is kept of every method, by locality; methods of which copy limit or plait is missing are left out."""
    out = []
    for name, case in library_cases().items():
        told = recipe_key(case, data)
        ours = kept.find(name, "plait", told)
        copies = kept.find(name, "copy", told, ours[0].build) if ours else []
        if not copies:
            continue
        theirs = kept.find(name, "mergekit", told)
        theirs = [one for one in theirs if not one.run.stopped] or theirs[-1:]
        used = list(dict.fromkeys(one.session for one in [*copies, *ours]))
        line = LibraryLine(
            name,
            words(case),
            locality(case),
            bar(case),
            middle([one.run for one in copies]),
            middle([one.run for one in ours]),
            len(ours),
            ours[0].build,
            [kept.sessions[one] for one in used],
            middle([one.run for one in theirs]) if theirs else None,
            [kept.sessions[one] for one in dict.fromkeys(one.session for one in theirs)],
        )
        out.append(line)
    return out


def _sources(python: str) -> str:
    """A few letters that tell the sources of the plait that an interpreter has."""
    code = (
        "import hashlib, pathlib, plait\n"
        "home = pathlib.Path(plait.__file__).parent\n"
        "print(hashlib.sha256(b''.join(f.read_bytes() for f in sorted(home.rglob('*.py')))).hexdigest()[:12])"
    )
    return _told([python, "-I", "-c", code])


def _version(python: Path, package: str) -> str:
    return _told([str(python), "-I", "-c", f"import importlib.metadata as m; print(m.version({package!r}))"])


def _told(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
