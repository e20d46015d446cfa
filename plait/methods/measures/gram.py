"""The dot products of all models with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plait import ops
from plait.methods.measures.measure import ExactSums, host
from plait.methods.vocabulary import Array
from plait.ops.fusing import Grid, gram_of_grid

__all__ = ["Gram"]


@dataclass
class Gram:
    """All dot products of the inputs: `[k, k]` float64."""

    k: int
    sums: ExactSums = field(default_factory=ExactSums)

    def needed(self) -> bool:
        """Return true."""
        return True

    def wants_sample(self) -> bool:
        """Return false."""
        return False

    def prime(self, sample: Array) -> None:
        """Do nothing."""

    def fork(self) -> Gram:
        """Return an empty Gram matrix."""
        return Gram(self.k)

    def enter(self, parameters: Mapping[str, Any]) -> None:
        """Do nothing."""

    def update(self, stack: Array, start: int, rng: Any) -> None:  # noqa: ARG002 - the protocol's arguments
        """Add the tile's blocks."""
        self.sums.add(host(ops.gram_blocks(stack, start)).copy())  # it lies in the tile's memory

    def update_grid(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> list[bool] | None:  # noqa: ARG002
        """Add a batch's blocks."""
        blocks, finite = gram_of_grid(grid, code, has_base=has_base)
        self.sums.add(blocks)
        return finite

    def join(self, other: Gram) -> None:
        """Take over the other's blocks."""
        self.sums.join(other.sums)

    def finish_pass(self) -> bool:
        """One pass does."""
        return False

    def result(self) -> Array:
        """Add the blocks up, exactly."""
        gram = np.zeros((self.k, self.k))
        gram[np.triu_indices(self.k)] = self.sums.totals(self.k * (self.k + 1) // 2)
        return gram + np.triu(gram, 1).T
