"""Dropping at random by rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from plait.ops.rng import Rng
from plait.ops.sides import Array, side

__all__ = ["drop_ranked"]


def drop_ranked(deltas: Array, density: Array, epsilon: Array, rng: Rng) -> Array:
    """Zero entries at random, those of low rank sooner. `[k, …, columns]` -> the same shape.

    MagPrune of DELLA (Deep et al. 2024, https://arxiv.org/abs/2406.11617): of a row of n, the entry of rank r (see
    `ranks`) stays with probability density - epsilon + 2 epsilon r / (n - 1), of a row of one with the density. Where
    the density is 0 or 1, epsilon has no effect. As in `drop`, nothing is rescaled, and what stays depends on
    `rng.keys[i]`, `rng.start + j` and the probability alone.

    Args:
        deltas: a tile's stack, of whole rows.
        density: one number per model, `[k, 1, …]`, in [0, 1].
        epsilon: one number per model, `[k, 1, …]`, half of the window; 0 or more.
        rng: at the tile's first element.

    Raises:
        ValueError: another number of densities, epsilons or keys, or a probability outside [0, 1].

    >>> drop_ranked(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[0.5]]), np.array([[0.5]]), Rng(np.array([1], np.uint64)))
    array([[0., 0., 0., 4.]])
    """
    models = len(deltas)
    if rng.keys.size != models:
        raise ValueError(f"one key per model: {models} models, but {rng.keys.size} keys")
    middle, half = _each(density, models), _each(epsilon, models)
    half = np.where((middle > 0) & (middle < 1) & (deltas.shape[-1] > 1), half, 0.0)
    if not ((half >= 0) & (middle - half >= 0) & (middle + half <= 1)).all():
        raise ValueError(f"probabilities density ± epsilon are in [0, 1]; got {middle.tolist()} ± {half.tolist()}")
    return side(deltas).drop_ranked(deltas, middle - half, 2 * half / max(1, deltas.shape[-1] - 1), rng)


def _each(numbers: Any, models: int) -> npt.NDArray[np.float64]:
    host = numbers.detach().cpu().numpy() if hasattr(numbers, "detach") else numbers
    each = np.asarray(host, np.float64).reshape(-1)
    if each.size != models:
        raise ValueError(f"one number per model: {models} models, but {each.size} numbers")
    return each
