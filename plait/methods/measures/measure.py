"""What all measures have in common: how the engine drives them, and sums that no order of their terms changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from plait.methods.vocabulary import Array
from plait.ops.fusing import Grid

__all__ = ["SAMPLE", "ExactSums", "Measure", "host"]

SAMPLE = 1 << 16
"""Entries a model that `prime` is shown, to guess where the threshold lies."""
_ROWS = 1 << 16  # blocks that are held before they are added up


class Measure(Protocol):
    """What the engine drives: optional `prime`, passes of `update` until `finish_pass` is false, then `result`."""

    def needed(self) -> bool:
        """Whether any pass is needed; when not, `result` may be called at once."""

    def wants_sample(self) -> bool:
        """Whether `prime` should be called before the first pass."""

    def prime(self, sample: Array) -> None:
        """See `[k, m]` entries drawn evenly from the whole."""

    def fork(self) -> Measure:
        """Return an empty copy for another thread to fill in this pass."""

    def enter(self, parameters: Mapping[str, Any]) -> None:
        """Hear the parameters, and what was measured before, of the tensor whose tiles come next."""

    def update(self, stack: Array, start: int, rng: Any) -> None:
        """See one tile `[k, n]` (of methods with another locality: `[k, rows, columns]`, or the whole `[k, *shape]`).

        Its first entry is entry `start` of its tensor.
        """

    def update_grid(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> list[bool] | None:
        """See a batch's raw elements in one call and return which rows are finite; or None, to be given tiles."""

    def join(self, other: Any) -> None:
        """Add what a fork has seen."""

    def finish_pass(self) -> bool:
        """End a pass; true when another is needed."""

    def result(self) -> Array:
        """Return what was measured, `[k]` float64 (the Gram matrix: `[k, k]`)."""


def host(values: Any) -> npt.NDArray[Any]:
    """Return an array in this machine's memory: itself, or a copy of a tensor."""
    return values if isinstance(values, np.ndarray) else np.asarray(values.detach().cpu().numpy())


class ExactSums:
    """The sums of many rows of numbers, column by column, rounded once: no order of the rows changes them.

    However many rows there are, few are held: now and then they become numbers that have exactly the same sum.

    >>> sums = ExactSums()
    >>> sums.add(np.array([[1e16], [1.0], [1.0], [-1e16]]))
    >>> sums.totals(1).tolist()
    [2.0]
    """

    def __init__(self) -> None:
        self.blocks: list[npt.NDArray[np.float64]] = []
        self.rows = 0

    def add(self, blocks: npt.NDArray[np.float64]) -> None:
        """Take `[rows, columns]`; the array must not change afterwards."""
        self.blocks.append(blocks)
        self.rows += len(blocks)
        if self.rows > _ROWS:
            self._condense()

    def join(self, other: ExactSums) -> None:
        """Take over what another has seen."""
        for blocks in other.blocks:
            self.add(blocks)

    def totals(self, columns: int) -> npt.NDArray[np.float64]:
        """Return the sums `[columns]`; of no rows at all, zeros."""
        if not self.blocks:
            return np.zeros(columns)
        return np.array([math.fsum(column) for column in np.concatenate(self.blocks).T.tolist()])

    def _condense(self) -> None:
        parts = [_same_sum(column) for column in np.concatenate(self.blocks).T.tolist()]
        condensed = np.zeros((max(len(part) for part in parts), len(parts)))
        for i, part in enumerate(parts):
            condensed[: len(part), i] = part
        self.blocks, self.rows = [condensed], len(condensed)


def _same_sum(column: list[float]) -> list[float]:
    """Return a few numbers with exactly the sum of many: the sum as it is rounded, what that left over, and so on."""
    parts: list[float] = []
    while (left := math.fsum([*column, *(-part for part in parts)])) != 0:
        parts.append(left)
        if not math.isfinite(left):
            break
    return parts
