"""Quantiles of entries with their signs: exact, by counting the floats' bits in their order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from plait.methods.measures.measure import host
from plait.methods.measures.seen import Of, Seen, one_each, reading
from plait.methods.vocabulary import Array, Measured
from plait.ops.fusing import Grid
from plait.ops.magnitude import ordered_bits

__all__ = ["Quantiles", "signed_quantile"]

_SMALL = 1 << 16
_BINS = 1 << 16  # of the upper, and of the lower 16 bits
_MIDDLE = 1 << 15  # the bin of +0


class Quantiles:
    """The value below which a fraction `at` of each row lies, `[r]`: between two entries, on the line through them.

    The fraction 0 is the least entry and 1 the greatest (Hyndman and Fan's definition 7, as numpy and torch have it).
    One pass counts the upper 16 bits of all entries, a second the lower 16 of those in the bins that matter.
    """

    def __init__(self, at: npt.NDArray[np.float64], size: int, seen: Seen) -> None:
        if not ((at >= 0) & (at <= 1)).all():
            raise ValueError(f"quantiles are taken at 0 to 1, not at {at.tolist()}")
        self.at, self.size, self.seen = at, size, seen
        self.ranks = [sorted({math.floor(q * (size - 1)), math.ceil(q * (size - 1))}) for q in at.tolist()]
        self.bins: list[list[tuple[int, int]]] = []
        """For each row and rank: the bin that holds it, and its rank in there."""
        self.values: list[list[float]] = []
        self.stage = "all" if size <= _SMALL else "high"
        self.wide = False
        self._reset()

    def _reset(self) -> None:
        self.kept: list[npt.NDArray[Any]] = []
        self.counts: dict[tuple[int, int], Any] = {}
        """(row, bin; or row, -1) -> counts `[65536]`, where the stack lives."""

    def needed(self) -> bool:
        """Whether there is anything."""
        return self.size > 0

    def passes(self) -> int:
        """How many passes it takes."""
        return (1 if self.stage == "all" else 2) if self.needed() else 0

    def wants_sample(self) -> bool:
        """Return false."""
        return False

    def prime(self, sample: Array) -> None:
        """Do nothing."""

    def fork(self) -> Quantiles:
        """Return an empty copy at the same stage."""
        other = object.__new__(Quantiles)
        other.__dict__.update(self.__dict__)
        other._reset()
        return other

    def enter(self, parameters: Mapping[str, Any]) -> None:
        """Look with this tensor's numbers."""
        self.seen = self.seen.with_numbers(parameters)

    def update(self, stack: Array, start: int, rng: Any) -> None:  # noqa: ARG002 - the protocol's arguments
        """Count one tile's entries."""
        self._see(self.seen.rows(stack, rng))

    def _see(self, rows: Array) -> None:
        if len(rows) != len(self.at):
            raise ValueError(f"{len(rows)} rows are measured, where one entry a model made {len(self.at)}")
        flat = rows.reshape(len(rows), -1)
        if self.stage == "all":
            self.kept.append(np.array(host(flat)))
        elif int(flat.dtype.itemsize) == 8:
            self.wide = True  # the bits counted are float32's: this pass is lost, and the next keeps everything
        else:
            for i, row in enumerate(ordered_bits(flat)):
                self._count(i, row)

    def _count(self, i: int, bits: Array) -> None:
        if self.stage == "high":
            self._add((i, -1), (bits >> 16) + _MIDDLE)
            return
        for high in {high for high, _ in self.bins[i]}:
            self._add((i, high), bits[(bits >> 16) + _MIDDLE == high] & 0xFFFF)

    def _add(self, key: tuple[int, int], places: Array) -> None:
        if isinstance(places, np.ndarray):
            counts: Any = np.bincount(places, minlength=_BINS)
        else:
            counts = places.bincount(minlength=_BINS)
        self.counts[key] = self.counts[key] + counts if key in self.counts else counts

    def update_grid(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> list[bool] | None:
        """Count a batch's, where what is seen can be written as a loop."""
        rows = self.seen.in_one_call(grid, code, start, rng, has_base=has_base)
        if rows is None:
            return None
        self._see(rows)
        return [True] * len(grid)

    def join(self, other: Quantiles) -> None:
        """Add a fork's counts."""
        self.wide = self.wide or other.wide
        self.kept += other.kept
        for key, counts in other.counts.items():
            self.counts[key] = self.counts[key] + counts if key in self.counts else counts

    def finish_pass(self) -> bool:
        """Find the ranks' bins, then their values; true until they are known."""
        if self.stage == "all":
            entries = np.concatenate(self.kept, axis=1)
            self.values = [
                np.partition(row, ranks)[ranks].tolist() for row, ranks in zip(entries, self.ranks, strict=True)
            ]
        elif self.wide:
            self.stage, self.wide = "all", False
        elif self.stage == "high":
            self.bins = [
                [_place(host(self.counts[i, -1]), rank) for rank in ranks] for i, ranks in enumerate(self.ranks)
            ]
            self.stage = "low"
        else:
            self.values = [[self._value(i, high, rank) for high, rank in places] for i, places in enumerate(self.bins)]
        self._reset()
        return not self.values

    def _value(self, i: int, high: int, rank: int) -> float:
        low = _place(host(self.counts[i, high]), rank)[0]
        ordered = np.array([(high - _MIDDLE) << 16 | low], np.int32)
        return float((ordered ^ ((ordered >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)[0])

    def result(self) -> Array:
        """Return the quantiles, minus zero as zero; zeros where there was nothing."""
        found = np.zeros(len(self.at))
        for i, values in enumerate(self.values):
            place = self.at[i] * (self.size - 1)
            found[i] = values[0] + (place - math.floor(place)) * (values[-1] - values[0])
        return found + 0.0


def _place(counts: npt.NDArray[np.int64], rank: int) -> tuple[int, int]:
    """Return the bin of the entry that has `rank` others below it, and how many of these lie in the bin."""
    below = np.cumsum(counts)
    place = int(np.searchsorted(below, rank, side="right"))
    return place, rank - (int(below[place - 1]) if place else 0)


def signed_quantile(
    of: Of,
    at: Callable[[Mapping[str, Any]], Any],
    *,
    scoped: bool = True,
    reads: tuple[str, ...] | None = None,
    uses: tuple[str, ...] | None = None,
) -> Measured:
    """Declare quantiles of `of(stack, p, rng)`, signs included. -> float64 `[k]`, or `[1]` where it is one array.

    `at(p)` is the fraction below the quantile, from 0 to 1: one for all or one for each row. For `scoped`,
    `reads` and `uses` see `summed`.
    """

    def make(parameters: Mapping[str, Any], k: int, size: int) -> Quantiles:
        seen = Seen(of, parameters)
        return Quantiles(one_each(at(parameters), seen.count(k)), size, seen)

    return Measured(make, scoped, reading(reads), uses, counts=True)
