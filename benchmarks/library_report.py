"""The table of the method library as Markdown, and what it says of what was aimed at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kept import Session
from measure import Run
from report import peak, row, seconds

from plait.methods.facts import LOCALITIES

__all__ = ["HEADING", "LibraryLine", "library_section"]

HEADING = "## The method library"
APART = "†"
THIRTY = ("della", "breadcrumbs", "ties")
"""The methods that are to be thirty times as fast as mergekit's."""


@dataclass(frozen=True)
class LibraryLine:
    """What was measured of one method; the medians of its runs."""

    name: str
    recipe: str
    locality: str
    bar: float | None
    copy: Run
    plait: Run
    runs: int
    build: str
    sessions: Sequence[Session]
    mergekit: Run | None = None
    mergekit_sessions: Sequence[Session] = ()

    @property
    def ratio(self) -> float:
        return self.plait.wall / self.copy.wall

    @property
    def met(self) -> bool | None:
        """Whether it takes no more than its bar, as the table shows them; None where it has none."""
        return None if self.bar is None else round(self.ratio, 2) <= self.bar

    @property
    def gain(self) -> float | None:
        """How many times as long mergekit takes, or more where it was stopped."""
        return self.mergekit.wall / self.plait.wall if self.mergekit else None

    @property
    def slower(self) -> bool:
        """Whether mergekit took less time; of a stopped run that is not known, and not said."""
        return self.gain is not None and self.gain < 1 and not (self.mergekit and self.mergekit.stopped)

    @property
    def apart(self) -> bool:
        """Whether mergekit was measured at another time than plait."""
        return not {one.session for one in self.mergekit_sessions} <= {one.session for one in self.sessions}


def library_section(lines: Sequence[LibraryLine]) -> str:
    """The whole section, heading included."""
    ordered = sorted(lines, key=lambda line: (list(LOCALITIES).index(line.locality), line.name))
    sessions = sorted((one for line in ordered for one in [*line.sessions, *line.mergekit_sessions]), key=_start)
    facts = _once(fact for one in sessions for fact in one.facts)
    made = ", ".join(f"`{command}`" for command in _once(one.command for one in sessions))
    head = ("method", "merges", "locality", "copy limit", "plait", "÷ copy", "bar", "")
    head += ("CPU ÷ copy's CPU", "memory", "mergekit", "mergekit ÷ plait")
    left = {0, 1, 2, 7}
    table = [row(head), row(["---" if i in left else "--:" for i in range(len(head))])]
    table += [row(_cells(line)) for line in ordered]
    parts = [HEADING, "", f"Made by {made}.", "", *facts, "", _about(ordered), "", *table, ""]
    return "\n".join([*parts, *_notes(ordered), *_held(ordered), "", ""])


def _start(session: Session) -> str:
    return session.session


def _cells(line: LibraryLine) -> list[str]:
    theirs = gain = ""
    if line.mergekit is not None and line.gain is not None:
        stopped = line.mergekit.stopped
        theirs = f"stopped after {line.mergekit.wall:.0f} s" if stopped else seconds(line.mergekit)
        theirs += f" {APART}" if line.apart else ""
        gain = f"{'> ' if stopped else ''}{line.gain:.1f}"
    return [
        f"`{line.name}`",
        line.recipe,
        line.locality,
        seconds(line.copy),
        seconds(line.plait),
        f"{line.ratio:.2f}",
        f"{line.bar:g}" if line.bar is not None else "",
        {True: "met", False: "**missed**", None: ""}[line.met],
        f"{line.plait.cpu / line.copy.cpu:.2f}",
        peak(line.plait),
        theirs,
        gain,
    ]


def _about(lines: Sequence[LibraryLine]) -> str:
    counts = sorted({line.runs for line in lines})
    runs = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        f"Every method once, median of {runs} runs, copy limit and plait in turns, otherwise as above. *Merges*: how "
        "many models, whether on a base, and what the recipe sets beside weights; all else is the method's default, the "
        "whole model's scope where it is that. *Copy limit*: of the method's own inputs. *Bar*: what a method of its "
        "locality may take of it. *CPU ÷ copy's CPU*: seconds of the processors, user and system, of plait over the "
        "copy's, which is steadier than the clock on a shared machine."
    )


def _notes(lines: Sequence[LibraryLine]) -> list[str]:
    notes = []
    apart = [line for line in lines if line.mergekit and line.apart]
    if apart:
        days = _once(one.session.split()[0] for line in apart for one in line.mergekit_sessions)
        notes.append(f"{APART} From another run on the same machine ({', '.join(days)}), not in turns with plait.")
    builds = {line.build for line in lines}
    if len(builds) > 1:
        notes.append(f"The rows are of {len(builds)} states of plait: some were measured again after a change.")
    return [part for note in notes for part in (note, "")]


def _held(lines: Sequence[LibraryLine]) -> list[str]:
    judged = [line for line in lines if line.met is not None]
    missed = [f"`{line.name}` {line.ratio:.2f}" for line in judged if not line.met]
    against = [line for line in lines if line.gain is not None]
    slower = [f"`{line.name}` {line.gain:.1f}" for line in against if line.slower]
    held = [row(("aim", "found")), row(("---", "---"))]
    bars = f"{len(judged) - len(missed)} of {len(judged)}" + (f"; **missed** by {', '.join(missed)}" if missed else "")
    held.append(row(("element, span and measured at most 1.6 × the copy limit, row 2.5 ×", bars)))
    if against:
        than = f"{len(against) - len(slower)} of {len(against)}"
        than += f"; **missed** by {', '.join(slower)}" if slower else ""
        held.append(row(("none slower than mergekit", than)))
    thirty = [f"`{line.name}` {_times(line)}" for line in lines if line.name in THIRTY and line.gain is not None]
    if thirty:
        held.append(row(("`della`, `breadcrumbs` and `ties` 30 times as fast as mergekit", ", ".join(thirty))))
    return held


def _times(line: LibraryLine) -> str:
    gain = line.gain or 0.0
    if line.mergekit and line.mergekit.stopped:
        return f"more than {gain:.0f}"
    return f"{gain:.1f}" + ("" if gain >= 30 else " (**missed**)")


def _once(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
