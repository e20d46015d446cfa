"""Several measures in the same passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plait.methods.measures.measure import Measure
from plait.methods.vocabulary import Array
from plait.ops.fusing import Grid

__all__ = ["Several"]


class Several:
    """Measures that see the same tiles; each for as many passes as it asks for."""

    def __init__(self, measures: Sequence[Measure]) -> None:
        self.measures = measures
        self.going = [measure for measure in measures if measure.needed()]
        self.tiles: Sequence[Measure] = self.going
        """Those that are to be given tiles of what could not be shown in one call."""

    def needed(self) -> bool:
        """Whether any of them needs a pass."""
        return bool(self.going)

    def wants_sample(self) -> bool:
        """Whether any of them does."""
        return any(measure.wants_sample() for measure in self.going)

    def prime(self, sample: Array) -> None:
        """Show it to those that want it."""
        for measure in self.going:
            if measure.wants_sample():
                measure.prime(sample)

    def fork(self) -> Several:
        """Return empty copies of those that go on."""
        other = Several([])
        other.tiles = other.going = [measure.fork() for measure in self.going]
        return other

    def enter(self, parameters: Mapping[str, Any]) -> None:
        """Tell all."""
        self.tiles = self.going
        for measure in self.going:
            measure.enter(parameters)

    def update(self, stack: Array, start: int, rng: Any) -> None:
        """Show a tile to those that have not seen it."""
        for measure in self.tiles:
            measure.update(stack, start, rng)

    def update_grid(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> list[bool] | None:
        """Show a batch to all; None where some are to be given its tiles."""
        found = [measure.update_grid(grid, code, start, rng, has_base=has_base) for measure in self.going]
        self.tiles = [measure for measure, finite in zip(self.going, found, strict=True) if finite is None]
        return None if self.tiles else found[0]

    def join(self, other: Several) -> None:
        """Add what each of the other's has seen."""
        for measure, more in zip(self.going, other.going, strict=True):
            measure.join(more)

    def finish_pass(self) -> bool:
        """End a pass; true when any needs another."""
        self.tiles = self.going = [measure for measure in self.going if measure.finish_pass()]
        return bool(self.going)

    def result(self) -> Any:
        """Return what each has measured, in order."""
        return [measure.result() for measure in self.measures]
