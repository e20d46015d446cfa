"""The results as Markdown, with what one must know of the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from extras import Extra
    from measure import Run

__all__ = ["Line", "markdown"]


@dataclass
class Line:
    """What was measured of one method; None where it was not."""

    title: str
    copy: Run
    plait: Run
    bytes_read: int
    bytes_written: int
    mergekit: Run | None = None
    mergekit_runs: int = 0
    right: dict[str, dict[str, float]] = field(default_factory=dict)
    """Accuracy by "plait" and "mergekit"."""


def markdown(
    lines: Sequence[Line], extras: Sequence[Extra], *, runs: int, command: str, python: str, mergekit: Path | None
) -> str:
    """The whole of RESULTS.md."""
    parts = ["# Measured results", "", f"Made by `{command}`, in one run.", "", *_facts(python, mergekit), ""]
    if lines:
        parts += [*_merges(lines, runs), ""]
    if extras:
        parts += [*_others(extras), ""]
    return "\n".join(parts)


def _merges(lines: Sequence[Line], runs: int) -> list[str]:
    head = ("method", "read + written", "copy limit", "plait", "÷ copy", "memory", "right")
    theirs = ("mergekit", "runs", "memory", "right", "mergekit ÷ plait")
    table = [_row(head + theirs), _row(("---", *["--:"] * (len(head) + len(theirs) - 1)))]
    for line in lines:
        moved = f"{line.bytes_read / 1e9:.1f} + {line.bytes_written / 1e9:.1f} GB"
        own = (_seconds(line.copy), _seconds(line.plait), f"{line.plait.wall / line.copy.wall:.2f}", _peak(line.plait))
        other = ("", "", "", "", "")
        if line.mergekit:
            ratio = f"{line.mergekit.wall / line.plait.wall:.1f}"
            other = (
                _seconds(line.mergekit),
                str(line.mergekit_runs),
                _peak(line.mergekit),
                _share(line, "mergekit"),
                ratio,
            )
        table.append(_row((line.title, moved, *own, _share(line, "plait"), *other)))
    return [
        "## Merging",
        "",
        (
            f"Whole processes, median of {runs} runs (of mergekit as many as the column says), taken in turns; inputs in the "
            "page cache, outputs removed between runs, nothing synced. *Copy limit*: a program that only reads these inputs "
            "once and writes as many bytes as the output has, with two threads. *Memory*: the process's peak resident "
            "memory; pages of inputs that it maps count (mergekit maps them, plait does not). *Right*: the share of entries "
            "of sampled tensors that are the correct rounding to bfloat16 of a float64 computation "
            "(`benchmarks/references.py`); DARE's masks are random, so it has none, and the Karcher "
            "mean is held against the converged one, though both tools stop at steps below 1e-5."
        ),
        "",
        *table,
    ]


def _others(extras: Sequence[Extra]) -> list[str]:
    table = [_row(("what", "seconds", "memory", "runs", "promised")), _row(("---", "--:", "--:", "--:", "--:"))]
    for extra in extras:
        bars = [f"{extra.bar_seconds:g} s"] if extra.bar_seconds else []
        bars += [f"{extra.bar_bytes / 1e6:.0f} MB"] if extra.bar_bytes else []
        table.append(_row((extra.title, f"{extra.run.wall:.2f}", _peak(extra.run), str(extra.runs), ", ".join(bars))))
    return ["## Planning, depth, start", "", *table]


def _facts(python: str, mergekit: Path | None) -> list[str]:
    facts = [
        f"- processor: {_processor()}, {os.cpu_count()} cores; memory {_memory() / 2**30:.0f} GiB",
        f"- system: {platform.system()} {platform.release()}, Python {platform.python_version()}",
        f"- plait's environment: {_versions(python, ('plait', 'numpy', 'numba', 'ml_dtypes', 'torch', 'transformers'))}",
    ]
    if mergekit:
        names = ("mergekit", "torch", "transformers", "safetensors")
        facts.append(f"- mergekit's environment: {_versions(mergekit / 'bin' / 'python', names)}")
    return facts


def _versions(python: str | Path, names: Sequence[str]) -> str:
    """Tell the versions that an interpreter has; plait verifies more, and starts later, where transformers is."""
    code = (
        "import sys, importlib.metadata as m\n"
        "have = {d.metadata['Name'].lower().replace('-', '_'): d.version for d in m.distributions()}\n"
        "print(', '.join(f'{n} {have[n]}' if n in have else f'no {n}' for n in sys.argv[1:]))"
    )
    done = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _share(line: Line, who: str) -> str:
    return f"{line.right[who]['share']:.3%}" if who in line.right else "-"


def _seconds(taken: Run) -> str:
    return f"{taken.wall:.2f} s" if taken.wall < 10 else f"{taken.wall:.0f} s"


def _peak(taken: Run) -> str:
    return f"{taken.peak / 1e6:.0f} MB"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
