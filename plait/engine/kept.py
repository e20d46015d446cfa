"""What measuring has read, for making."""

from __future__ import annotations

import numpy as np

from plait.engine.device import Raw
from plait.planning.types import Step

__all__ = ["Kept"]


class Kept:
    """What one thread has read of the step that it is measuring, as far as it fits: so that it is read once."""

    def __init__(self, capacity: int) -> None:
        self._buffer: Raw = np.empty(max(0, capacity), np.uint8)
        self._used = 0
        self._step: Step | None = None
        self._grids: dict[int, Raw] = {}

    def begin(self, step: Step | None) -> None:
        """Forget what was kept; keep what is read of this step from now on (None: of none)."""
        self._step, self._used, self._grids = step, 0, {}

    def find(self, step: Step, start: int, shape: tuple[int, int]) -> Raw | None:
        """Return the batch of that shape from element `start` on, or None."""
        grid = self._grids.get(start) if step is self._step else None
        return grid if grid is not None and grid.shape == shape else None

    def room(self, step: Step, start: int, shape: tuple[int, int]) -> Raw | None:
        """Return an array to read that batch into, or None when it is not to be kept."""
        size = -(-shape[0] * shape[1] // 64) * 64
        if step is not self._step or self._used + size > len(self._buffer):
            return None
        grid = self._buffer[self._used : self._used + shape[0] * shape[1]].reshape(shape)
        self._used += size
        self._grids[start] = grid
        return grid
