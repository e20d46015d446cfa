"""Every exception that plait raises on purpose.

PlaitError
├── RecipeError       a recipe is wrong; carries all of its faults
├── CheckpointError   an input cannot be read, or is not what it says it is
├── ArgumentError     an option or argument is wrong, on its own or for what it is used on
├── OutputError       the output folder cannot be made, or may not be touched
└── MergeError        a merge that had begun had to stop
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "Fault",
    "MergeError",
    "OutputError",
    "PlaitError",
    "RecipeError",
    "Where",
    "did_you_mean",
]


class PlaitError(Exception):
    """Any error that plait raises on purpose. `exit_code` is what the command line exits with."""

    exit_code = 1


class ArgumentError(PlaitError):
    """An option or argument is wrong, on its own or for what it is used on; nothing was written."""

    exit_code = 2


class CheckpointError(PlaitError):
    """An input cannot be read, or its header, index or pickle is not what it says it is."""

    exit_code = 2


class OutputError(PlaitError):
    """The output folder cannot be made or may not be touched."""

    exit_code = 2


class MergeError(PlaitError):
    """A merge that had begun had to stop: a non-finite value, a changed input, a full disk."""


@dataclass(frozen=True, slots=True, order=True)
class Where:
    """A place in a recipe: the file as the user named it and the line, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a recipe: what, where, and the way out."""

    message: str
    where: Where | None = None
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.message}" + (f" {self.hint}" if self.hint else "")


class RecipeError(PlaitError):
    """A recipe that cannot be merged; `faults` has everything that is wrong with it, in file order."""

    exit_code = 2

    def __init__(self, faults: Sequence[Fault]) -> None:
        ordered = sorted(faults, key=lambda fault: (fault.where is None, fault.where or Where("", 0)))
        self.faults = tuple(dict.fromkeys(ordered))
        self.readable: tuple[Any, ...] = ()
        """Of a file at fault, the documents as far as they could be read: what else is wrong with them can be told, too."""
        super().__init__("\n".join(str(fault) for fault in self.faults))

    @classmethod
    def of(cls, message: str) -> RecipeError:
        """Make one of a single fault without a place."""
        return cls([Fault(message)])


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return "Did you mean 'x'?" for the nearest of `known`, or "" when none is near.

    >>> did_you_mean("densty", ["weight", "density"])
    "Did you mean 'density'?"
    """
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"Did you mean '{near[0]}'?" if near else ""
