"""From a merged change to two factors: the adapters' own beside each other, or the best of a rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from plait.adapters.low_rank import Wanted
from plait.adapters.merging.modules import Joined
from plait.adapters.merging.space import Matrix, Space, factors_of
from plait.checkpoint import FileReader

__all__ = ["Made", "beside", "best"]

_NOISE = 2.0**-23
"""Singular values below this share of the largest are rounding of the float32 core."""
_CANCELLED = 2.0**-44
"""Those below this share of the adapters' own numbers are what is left where changes cancel."""


@dataclass(frozen=True, slots=True)
class Made:
    """The factors of one module: up @ down is the merged change."""

    up: Matrix
    """`[out, r]`."""
    down: Matrix
    """`[r, in]`."""
    error: float
    """Relative, of Frobenius norms: what was left out of the merged change. 0 where nothing was."""

    @property
    def rank(self) -> int:
        """Inner size; 0 for no change."""
        return len(self.down)


def beside(reader: FileReader, joined: Joined, shares: Mapping[int, float]) -> Made:
    """Put the adapters' factors beside each other: B as it is, A times what the adapter counts. The sum is exact."""
    ups, downs = [np.empty((joined.outputs, 0))], []
    for part in joined.parts:
        share = shares.get(part.model, 0.0) * part.scaling
        up, down = factors_of(reader, part)
        if share:
            ups.append(up)
            downs.append(share * down)
        width = down.shape[1]
    made = np.concatenate(downs) if downs else np.empty((0, width))
    return Made(np.concatenate(ups, axis=1), made, 0.0)


def best(space: Space, core: Matrix, wanted: Wanted | None) -> Made:
    """Factor left @ core @ right as near as `wanted` asks; whole when that is None.

    The bases are orthonormal, so the core's singular values are the change's own, and what the largest of them keep is
    the nearest matrix of that rank (Eckart and Young). Each factor has the roots of the singular values.
    """
    turned, values, other = np.linalg.svd(core)
    floor = max(_NOISE * values.max(initial=0.0), _CANCELLED * np.abs(space.cores).max(initial=0.0))
    values = values[values > floor]
    squares, total = np.square(values), float(np.square(core).sum())
    enough = len(values) if wanted is None or total == 0 else wanted.enough(squares, float(squares.sum()))
    rank = len(values) if enough is None else enough
    roots = np.sqrt(values[:rank])
    up, down = space.left @ (turned[:, :rank] * roots), (roots[:, None] * other[:rank]) @ space.right
    lost = float(squares[rank:].sum())
    return Made(up, down, float(np.sqrt(lost / total)) if total else 0.0)
