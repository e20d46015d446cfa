"""The results as Markdown, with what one must know of the machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from extras import Extra
    from measure import Run

__all__ = ["Line", "facts", "machine", "peak", "row", "seconds", "sections", "with_sections"]

INPUTS = "## Adapters, quantised weights, vocabularies"
ORDER = ("", "## Merging", "## The method library", INPUTS, "## Planning, depth, start")
"""The headings of RESULTS.md; what stands before the first has none."""
BAR = 2.0
"""What a merge that adapts, dequantises or aligns may take of the copy limit."""


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


def sections(
    lines: Sequence[Line], extras: Sequence[Extra], *, runs: int, command: str, python: str, mergekit: Path | None
) -> dict[str, str]:
    """What was measured in one run, by heading; the machine and the command, which are the first table's, come first."""
    parts = {}
    if lines:
        parts[""] = ["# Measured results", "", f"Made by `{command}`, in one run.", "", *facts(python, mergekit)]
        parts["## Merging"] = _merges(lines, runs)
    plain = [extra for extra in extras if extra.copy is None]
    if plain:
        parts["## Planning, depth, start"] = _others(plain)
    if len(plain) < len(extras):
        parts[INPUTS] = _inputs([extra for extra in extras if extra.copy is not None])
    return {heading: "\n".join([*part, "", ""]) for heading, part in parts.items()}


def with_sections(text: str, new: Mapping[str, str]) -> str:
    """The text of RESULTS.md with these sections in place of those under the same headings."""
    pieces = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    every = {piece.partition("\n")[0] if i else "": piece.rstrip() + "\n\n" for i, piece in enumerate(pieces)}
    every |= new
    ordered = [heading for heading in ORDER if heading in every] + [one for one in every if one not in ORDER]
    return "".join(every[heading] for heading in ordered).strip() + "\n"


def _merges(lines: Sequence[Line], runs: int) -> list[str]:
    head = ("method", "read + written", "copy limit", "plait", "÷ copy", "CPU ÷ copy's CPU", "memory", "right")
    theirs = ("mergekit", "runs", "memory", "right", "mergekit ÷ plait")
    table = [row(head + theirs), row(("---", *["--:"] * (len(head) + len(theirs) - 1)))]
    for line in lines:
        moved = f"{line.bytes_read / 1e9:.1f} + {line.bytes_written / 1e9:.1f} GB"
        shares = (f"{line.plait.wall / line.copy.wall:.2f}", f"{line.plait.cpu / line.copy.cpu:.2f}")
        own = (seconds(line.copy), seconds(line.plait), *shares, peak(line.plait))
        other = ("", "", "", "", "")
        if line.mergekit:
            stopped = line.mergekit.stopped
            ratio = f"{'> ' if stopped else ''}{line.mergekit.wall / line.plait.wall:.1f}"
            other = (
                f"stopped after {line.mergekit.wall:.0f} s" if stopped else seconds(line.mergekit),
                str(line.mergekit_runs),
                peak(line.mergekit),
                _share(line, "mergekit"),
                ratio,
            )
        table.append(row((line.title, moved, *own, _share(line, "plait"), *other)))
    return [
        "## Merging",
        "",
        (
            f"Whole processes, median of {runs} runs (of mergekit as many as the column says), taken in turns; inputs in the "
            "page cache, outputs removed between runs, nothing synced. *Copy limit*: a program that only reads these inputs "
            "once and writes as many bytes as the output has, with two threads. *CPU ÷ copy's CPU*: seconds of the "
            "processors, user and system, of plait over the copy's. *Memory*: the process's peak resident "
            "memory; pages of inputs that it maps count (mergekit maps them, plait does not). *Right*: the share of entries "
            "of sampled tensors that are the correct rounding to bfloat16 of a float64 computation "
            "(`benchmarks/references.py`); DARE's masks are random, so it has none, and the Karcher "
            "mean is held against the converged one, though both tools stop at steps below 1e-5."
        ),
        "",
        *table,
    ]


def _others(extras: Sequence[Extra]) -> list[str]:
    table = [row(("what", "seconds", "memory", "runs", "promised")), row(("---", "--:", "--:", "--:", "--:"))]
    for extra in extras:
        bars = [f"{extra.bar_seconds:g} s"] if extra.bar_seconds else []
        bars += [f"{extra.bar_bytes / 1e6:.0f} MB"] if extra.bar_bytes else []
        table.append(row((extra.title, f"{extra.run.wall:.2f}", peak(extra.run), str(extra.runs), ", ".join(bars))))
    return ["## Planning, depth, start", "", *table]


def _inputs(extras: Sequence[Extra]) -> list[str]:
    head = ("merge", "read + written", "copy limit", "plait", "÷ copy", "bar", "", "CPU ÷ copy's CPU", "memory")
    table = [row(head), row(("---", *["--:"] * 5, "---", "--:", "--:"))]
    for extra in extras:
        if extra.copy is None:
            continue
        share = extra.run.wall / extra.copy.wall
        moved = f"{extra.bytes_read / 1e9:.1f} + {extra.bytes_written / 1e9:.1f} GB"
        judged = "met" if share <= BAR else "**missed**"
        processors = f"{extra.run.cpu / extra.copy.cpu:.2f}"
        cells = (extra.title, moved, seconds(extra.copy), seconds(extra.run), f"{share:.2f}", f"{BAR:g}", judged)
        table.append(row((*cells, processors, peak(extra.run))))
    told = (
        f"Medians of {extras[0].runs} runs, copy limit and plait in turns, otherwise as above. The copy limit is that of the "
        "bytes that are really read (of a quantised model its codes and scales, of an adapter its factors) and written; "
        "the bar is what is promised of it. Models of 1.1 B parameters and synthetic numbers (`benchmarks/inputs.py`), the "
        "linear mean of two unless the line says otherwise."
    )
    return [INPUTS, "", told, "", *table]


def machine() -> str:
    """The machine in words; two measurements stand beside each other only where it is the same."""
    return f"{_processor()}, {os.cpu_count()} cores, memory {_memory() / 2**30:.0f} GiB"


def facts(python: str, mergekit: Path | None) -> list[str]:
    """What one must know of the machine and of both environments, as a list."""
    told = [
        f"- processor: {_processor()}, {os.cpu_count()} cores; memory {_memory() / 2**30:.0f} GiB",
        f"- system: {platform.system()} {platform.release()}, Python {platform.python_version()}",
        f"- plait's environment: {_versions(python, ('plait', 'numpy', 'numba', 'ml_dtypes', 'torch', 'transformers'))}",
    ]
    if mergekit:
        names = ("mergekit", "torch", "transformers", "safetensors")
        told.append(f"- mergekit's environment: {_versions(mergekit / 'bin' / 'python', names)}")
    return told


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


def seconds(taken: Run) -> str:
    return f"{taken.wall:.2f} s" if taken.wall < 10 else f"{taken.wall:.0f} s"


def peak(taken: Run) -> str:
    return f"{taken.peak / 1e6:.0f} MB"


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
