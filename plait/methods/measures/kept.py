"""How much of each model's L1 norm is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from plait import ops
from plait.methods.measures.measure import ExactSums, host
from plait.methods.measures.seen import beside
from plait.methods.vocabulary import Array, Measured
from plait.ops.fusing import Grid, Program, summing, sums_of_grid

__all__ = ["KeptNorm", "kept_norm"]


class KeptNorm:
    """How much each model's L1 norm shrank: the norm of the delta over the norm of what was kept of it, `[k]`.

    1 where nothing was kept or nothing was there.
    """

    def __init__(self, k: int, keep: Callable[[Array, Any], Array], needed: bool) -> None:
        self.k, self.keep, self._needed = k, keep, needed
        self.before, self.after = ExactSums(), ExactSums()
        self.program: Program | None = None

    def needed(self) -> bool:
        """Whether the recipe asks to restore the norm."""
        return self._needed

    def wants_sample(self) -> bool:
        """Return false."""
        return False

    def prime(self, sample: Array) -> None:
        """Do nothing."""

    def fork(self) -> KeptNorm:
        """Return an empty copy."""
        return KeptNorm(self.k, self.keep, self._needed)

    def enter(self, parameters: Mapping[str, Any]) -> None:
        """Do nothing."""

    def update(self, stack: Array, start: int, rng: Any) -> None:  # noqa: ARG002 - the protocol's arguments
        """Add one tile's magnitudes, before and after."""
        self.before.add(host(_norms(stack)).copy())  # they lie in the tile's memory
        self.after.add(host(_norms(self.keep(stack, rng))).copy())

    def update_grid(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> list[bool] | None:
        """Add a batch's magnitudes, where what is kept is trimmed or dropped."""
        if self.program is None:
            self.program = summing(lambda stack: (abs(stack), abs(self.keep(stack, rng and rng.at(0)))), self.k)
        program = self.program
        if program is None:
            return None
        memory = rng.memory if rng else None
        blocks = sums_of_grid(program, grid, code, start, has_base=has_base, memory=memory)
        if blocks is None:
            return None
        self.before.add(blocks[:, : self.k])
        self.after.add(blocks[:, self.k :])
        return [True] * len(grid)

    def join(self, other: KeptNorm) -> None:
        """Take over a fork's blocks."""
        self.before.join(other.before)
        self.after.join(other.after)

    def finish_pass(self) -> bool:
        """One pass does."""
        return False

    def result(self) -> Array:
        """Return the ratios."""
        pairs = zip(self.before.totals(self.k).tolist(), self.after.totals(self.k).tolist(), strict=True)
        return np.array([before / after if after > 0 else 1.0 for before, after in pairs])


def _norms(stack: Array) -> Array:
    """Sum magnitudes by fixed blocks: of `[k, n]` those of the tensor, of `[k, rows, columns]` those of each row."""
    if stack.ndim < 3:
        return ops.abs_sum_blocks(stack)
    blocks = ops.abs_sum_blocks(stack.reshape(-1, stack.shape[-1]))  # a row is as good as a model
    return blocks.reshape(len(blocks), len(stack), -1).swapaxes(1, 2).reshape(-1, len(stack))


def kept_norm(keep: Callable[[Array, Mapping[str, Any], Any], Array]) -> Measured:
    """Declare a KeptNorm for methods with `rescale`; `keep(deltas, parameters, rng)` is what the method keeps."""

    def make(parameters: Mapping[str, Any], k: int, size: int) -> KeptNorm:  # noqa: ARG001 - a measure's signature
        density = np.asarray(parameters["density"])
        wanted = parameters["rescale"] == "l1" and bool((density < 1).any())
        return KeptNorm(k, lambda stack, rng: keep(stack, beside(parameters, stack), rng), wanted)

    return Measured(make)
