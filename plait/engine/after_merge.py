"""Measuring what a method made: its measure sees, in each tile, the stack and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from plait.methods.measures import Measure
from plait.ops import stacked
from plait.ops.fusing import Grid

__all__ = ["AfterMerge"]


@dataclass
class AfterMerge:
    """Hands a measure the stack with the merged tile as one entry more, `[k + 1, …]`; on one thread."""

    inner: Measure
    merged: Callable[[Any, int], Any]
    """Called with a tile's stack and its first entry's number."""

    def needed(self) -> bool:
        """Whether the measure needs a pass."""
        return self.inner.needed()

    def wants_sample(self) -> bool:
        """Return false: a sample cannot be merged."""
        return False

    def prime(self, sample: Any) -> None:
        """Do nothing."""

    def fork(self) -> AfterMerge:
        """Return an empty copy."""
        return AfterMerge(self.inner.fork(), self.merged)

    def enter(self, parameters: Mapping[str, Any]) -> None:
        """Pass it on."""
        self.inner.enter(parameters)

    def update(self, stack: Any, start: int, rng: Any) -> None:
        """Merge one tile and show both."""
        merged = self.merged(stack, start)
        self.inner.update(stacked([*stack, merged.reshape(stack.shape[1:])]), start, rng)

    def update_grid(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> None:
        """Ask for tiles."""

    def join(self, other: AfterMerge) -> None:
        """Pass it on."""
        self.inner.join(other.inner)

    def finish_pass(self) -> bool:
        """Pass it on."""
        return self.inner.finish_pass()

    def result(self) -> Any:
        """Pass it on."""
        return self.inner.result()
