"""What one look at every entry tells: sums, and the least and the greatest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from plait import ops
from plait.methods.measures.measure import ExactSums, host
from plait.methods.measures.seen import Of, Seen, reading
from plait.methods.vocabulary import Array, Measured
from plait.ops.fusing import Grid, sums_of_grid

__all__ = ["Extremes", "Sums", "extremes", "summed"]

Floats = npt.NDArray[np.float64]


class Sums:
    """The sum of every row of what is seen, or of its squares, over all entries: `[r]`, rounded once."""

    def __init__(self, seen: Seen, rows: int, *, squared: bool = False, needed: bool = True) -> None:
        self.seen, self.rows, self.squared, self._needed = seen, rows, squared, needed
        self.sums = ExactSums()

    def needed(self) -> bool:
        """Whether the recipe asks for what the sum is for."""
        return self._needed

    def wants_sample(self) -> bool:
        """Return false."""
        return False

    def prime(self, sample: Array) -> None:
        """Do nothing."""

    def fork(self) -> Sums:
        """Return an empty copy."""
        return Sums(self.seen, self.rows, squared=self.squared, needed=self._needed)

    def enter(self, parameters: Mapping[str, Any]) -> None:
        """Look with this tensor's numbers."""
        self.seen = self.seen.with_numbers(parameters)

    def update(self, stack: Array, start: int, rng: Any) -> None:
        """Add the tile's blocks."""
        rows = _checked(self.seen.rows(stack, rng), self.rows)
        self.sums.add(host(ops.sum_blocks(rows, start, squared=self.squared)).copy())  # it lies in the tile's memory

    def update_grid(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> list[bool] | None:
        """Add a batch's blocks, where what is seen can be written as a loop."""
        program = self.seen.program(len(grid) - has_base, rng)
        if program is None or len(program.results) != self.rows:
            return None
        blocks = sums_of_grid(program, grid, code, start, has_base=has_base, squared=self.squared)
        if blocks is None:
            return None
        self.sums.add(blocks)
        return [True] * len(grid)

    def join(self, other: Sums) -> None:
        """Take over a fork's blocks."""
        self.sums.join(other.sums)

    def finish_pass(self) -> bool:
        """One pass does."""
        return False

    def result(self) -> Array:
        """Return the sums; zeros where none was needed."""
        return self.sums.totals(self.rows)


class Extremes:
    """The least and the greatest entry of every row of what is seen: `[2, r]`; of nothing at all, zeros."""

    def __init__(self, seen: Seen, rows: int, *, needed: bool = True) -> None:
        self.seen, self._needed = seen, needed
        self.found: Floats = np.stack([np.full(rows, np.inf), np.full(rows, -np.inf)])

    def needed(self) -> bool:
        """Whether the recipe asks for what the extremes are for."""
        return self._needed

    def wants_sample(self) -> bool:
        """Return false."""
        return False

    def prime(self, sample: Array) -> None:
        """Do nothing."""

    def fork(self) -> Extremes:
        """Return an empty copy."""
        return Extremes(self.seen, self.found.shape[1], needed=self._needed)

    def enter(self, parameters: Mapping[str, Any]) -> None:
        """Look with this tensor's numbers."""
        self.seen = self.seen.with_numbers(parameters)

    def update(self, stack: Array, start: int, rng: Any) -> None:  # noqa: ARG002 - the protocol's arguments
        """Compare with the tile's."""
        self._see(self.seen.rows(stack, rng))

    def _see(self, rows: Array) -> None:
        _checked(rows, self.found.shape[1])
        flat = rows.reshape(len(rows), -1)
        if flat.shape[1] == 0:
            return
        if isinstance(flat, np.ndarray):
            self._widen(flat.min(axis=1), flat.max(axis=1))
        else:
            self._widen(host(flat.amin(dim=1)), host(flat.amax(dim=1)))

    def _widen(self, low: npt.NDArray[Any], high: npt.NDArray[Any]) -> None:
        self.found = np.stack([np.minimum(self.found[0], low), np.maximum(self.found[1], high)])

    def update_grid(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> list[bool] | None:
        """Compare with a batch's, where what is seen can be written as a loop."""
        rows = self.seen.in_one_call(grid, code, start, rng, has_base=has_base)
        if rows is None:
            return None
        self._see(rows)
        return [True] * len(grid)

    def join(self, other: Extremes) -> None:
        """Compare with a fork's."""
        self._widen(other.found[0], other.found[1])

    def finish_pass(self) -> bool:
        """One pass does."""
        return False

    def result(self) -> Array:
        """Return them, minus zero as zero."""
        return np.where(self.found[0] <= self.found[1], self.found, 0.0) + 0.0


def _checked(rows: Array, wanted: int) -> Array:
    if len(rows) != wanted:
        raise ValueError(f"{len(rows)} rows are measured, where one entry a model made {wanted}")
    return rows


def _always(_: Mapping[str, Any]) -> bool:
    return True


def summed(
    of: Of,
    *,
    scoped: bool = False,
    needed: Callable[[Mapping[str, Any]], bool] = _always,
    squared: bool = False,
    reads: tuple[str, ...] | None = None,
    uses: tuple[str, ...] | None = None,
) -> Measured:
    """Declare the sum of `of(stack, p, rng)` over all entries. -> float64 `[k]`, or `[1]` where it is one array.

    The entries (with `squared`, their squares) are added in float64, the sum is rounded once, and it does not depend
    on tiles, threads or device. `needed(p)` says whether a pass is worth its while: if not, the sums are 0. With
    `scoped`, `scope: model` sums over the whole model. `reads` names what of `p` matters: tensors that differ in that
    are summed apart; None stands for all of it. `uses` names what of the measured arguments before it `of` looks up: the
    others may be measured in the same pass; None stands for all.
    """

    def make(parameters: Mapping[str, Any], k: int, size: int) -> Sums:  # noqa: ARG001 - a measure's signature
        seen = Seen(of, parameters)
        return Sums(seen, seen.count(k), squared=squared, needed=bool(needed(parameters)))

    return Measured(make, scoped, reading(reads), uses)


def extremes(
    of: Of,
    *,
    scoped: bool = False,
    needed: Callable[[Mapping[str, Any]], bool] = _always,
    reads: tuple[str, ...] | None = None,
    uses: tuple[str, ...] | None = None,
) -> Measured:
    """Declare the least and the greatest entry of `of(stack, p, rng)`. -> float64 `[2, k]`, or `[2, 1]` of one array.

    For `needed`, `scoped`, `reads` and `uses` see `summed`; where no pass is needed both are 0.
    """

    def make(parameters: Mapping[str, Any], k: int, size: int) -> Extremes:  # noqa: ARG001 - a measure's signature
        seen = Seen(of, parameters)
        return Extremes(seen, seen.count(k), needed=bool(needed(parameters)))

    return Measured(make, scoped, reading(reads), uses)
