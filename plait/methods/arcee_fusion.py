"""Arcee Fusion: only the base's most important differences are taken over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from plait import ops
from plait.methods.measures.measure import host
from plait.methods.method import method
from plait.methods.vocabulary import Array, Measured, Weights
from plait.ops.fusing import Grid
from plait.ops.magnitude import HIGH, LOW, histogram_high, histogram_low, magnitude_of

__all__ = ["arcee_fusion"]

_SMALL = 1 << 16  # entries that are kept and sorted


def _importance(weights: Array, divergence: Array) -> Array:
    return abs(weights[1] - weights[0]) * divergence


def _divergence(weights: Array) -> Array:
    return abs(ops.row_divergence(weights[1], weights[0]))


class _Quartiles:
    """The quartiles of a tensor's importances, exact: `[3]`; between two entries, on the line through them.

    One pass counts the upper bits of all, a second the lower bits of those in the bins that matter.
    """

    def __init__(self, size: int) -> None:
        self.places = [share * (size - 1) for share in (0.25, 0.5, 0.75)]
        self.size, self.stage = size, "all" if size <= _SMALL else "high"
        self.ranks = sorted({end(place) for place in self.places for end in (math.floor, math.ceil)})
        self.bins: list[tuple[int, int]] = []
        """For each rank: the bin that holds it, and its rank in there."""
        self.values: dict[int, float] = {}
        self.rows: dict[int, Array] = {}
        """The divergences of the rows of each tile."""
        self._reset()

    def _reset(self) -> None:
        self.kept: list[npt.NDArray[Any]] = []
        self.counts: dict[int, Any] = {}
        """By bin (-1 for the upper bits), where the stack lives."""

    def needed(self) -> bool:
        """Whether there is anything."""
        return self.size > 0

    def wants_sample(self) -> bool:
        """Return false."""
        return False

    def prime(self, sample: Array) -> None:
        """Do nothing."""

    def fork(self) -> _Quartiles:
        """Return an empty copy at the same stage."""
        other = _Quartiles(self.size)
        other.stage, other.bins = self.stage, self.bins
        return other

    def enter(self, parameters: Mapping[str, Any]) -> None:
        """Do nothing."""

    def update(self, stack: Array, start: int, rng: Any) -> None:  # noqa: ARG002 - the protocol's arguments
        """Count one tile's importances."""
        if start not in self.rows:
            found = _divergence(stack)
            self.rows[start] = found.copy() if isinstance(found, np.ndarray) else found
        importance = _importance(stack, self.rows[start]).reshape(-1)
        if self.stage == "all" or int(importance.dtype.itemsize) == 8:
            self.stage = "all"  # the bits that are counted are float32's
            self.kept.append(np.array(host(importance)))
        elif self.stage == "high":
            histogram_high(importance, self._counted(-1, HIGH, stack))
        else:
            for high in {high for high, _ in self.bins}:
                histogram_low(importance, high, self._counted(high, LOW, stack))

    def _counted(self, high: int, size: int, like: Any) -> Any:
        if high not in self.counts:
            self.counts[high] = (
                np.zeros(size, np.int64) if isinstance(like, np.ndarray) else like.new_zeros(size).long()
            )
        return self.counts[high]

    def update_grid(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> list[bool] | None:  # noqa: ARG002 - as above
        """Ask for tiles: rows are looked at as a whole."""
        return None

    def join(self, other: _Quartiles) -> None:
        """Add a fork's counts."""
        self.stage = other.stage
        self.kept += other.kept
        for high, counts in other.counts.items():
            self.counts[high] = self.counts[high] + counts if high in self.counts else counts

    def finish_pass(self) -> bool:
        """Find the ranks' bins, then their values; true until they are known."""
        if self.stage == "all":
            found = np.partition(np.concatenate(self.kept), self.ranks)[self.ranks]
            self.values = dict(zip(self.ranks, found.tolist(), strict=True))
        elif self.stage == "high":
            self.bins = [_place(host(self.counts[-1]), rank) for rank in self.ranks]
            self.stage = "low"
        else:
            for rank, (high, within) in zip(self.ranks, self.bins, strict=True):
                self.values[rank] = magnitude_of(high << 16 | _place(host(self.counts[high]), within)[0])
        self._reset()
        return not self.values

    def result(self) -> Array:
        """Return the quartiles; zeros where there was nothing."""
        if not self.values:
            return np.zeros(3)
        ends = [(self.values[math.floor(place)], self.values[math.ceil(place)], place % 1) for place in self.places]
        return np.array([low + part * (high - low) for low, high, part in ends])


def _place(counts: npt.NDArray[np.int64], rank: int) -> tuple[int, int]:
    """Return the bin of the entry that has `rank` others below it, and how many of these lie in the bin."""
    below = np.cumsum(counts)
    place = int(np.searchsorted(below, rank, side="right"))
    return place, rank - (int(below[place - 1]) if place else 0)


Quartiles = Annotated[Array, Measured(lambda _, _k, size: _Quartiles(size), counts=1)]


@method(
    paper="https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md",
    locality="row",
    base="first",
    min_models=2,
    max_models=2,
)
def arcee_fusion(weights: Weights, *, quartiles: Quartiles) -> Array:
    """Take the model's entries where importance |δ|·KL ≥ median + 1.5·IQR, the base's elsewhere. `[2, *shape] -> [*shape]`.

    KL is the divergence of softmax(row of the model) from softmax(row of the base), one number a row. Quantiles are
    exact (linear interpolation) over the whole tensor, so the same tensor always gives the same answer.

    Use it for two models where only the clearest changes should come over and the rest of the base should stay.
    """
    low, median, high = quartiles
    importance = _importance(weights, _divergence(weights))
    return ops.where(importance >= median + 1.5 * (high - low), weights[1], weights[0])
