"""Model Stock: how far to go from the base to the average, read off the angles between models. Jang et al. 2024."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from plait import ops
from plait.methods.method import method
from plait.methods.vocabulary import Array, Coefficients, Deltas, DeltasGram, Flag

__all__ = ["model_stock"]


@method(paper="https://arxiv.org/abs/2403.19522", locality="span", min_models=2)
def model_stock(gram: DeltasGram, *, filter_wise: Flag = False) -> Coefficients:
    """Interpolate: t·mean(θᵢ) + (1−t)·θ₀ with t = N cos θ / (1 + (N−1) cos θ), per tensor (eqs. 6 and 7).

    cos θ is the mean cosine over all pairs of deltas; a delta of zero length has cosine 0 with every other.
    `filter_wise: true` takes one t per row of the tensor instead.
    """
    del filter_wise
    return _ratio(np.asarray(gram)[None])[0] * np.full(len(gram), 1 / len(gram))


@model_stock.when(filter_wise=True, locality="row")
def filter_wise_model_stock(deltas: Deltas, *, filter_wise: Flag = True) -> Array:
    """Take one interpolation ratio per row. `[k, rows, columns] -> [rows, columns]`."""
    del filter_wise
    rows = deltas if isinstance(deltas, np.ndarray) else deltas.detach().cpu().numpy()
    wide = rows.astype(np.float64)
    grams = np.einsum("irc,jrc->rij", wide, wide)
    ratio = (_ratio(grams) / len(rows)).astype(rows.dtype)
    total = ops.weighted_sum(deltas, np.ones(len(rows)))
    return total * (ratio[:, None] if isinstance(deltas, np.ndarray) else deltas.new_tensor(ratio)[:, None])


def _ratio(grams: Array) -> Array:
    """Eq. 7 for a batch of Gram matrices: `[n, k, k] -> [n]`. 0 at the singularity, where no ratio is finite."""
    k = grams.shape[-1]
    norms = np.sqrt(np.einsum("nii->ni", grams))
    cosines = []
    for i, j in combinations(range(k), 2):
        product = norms[:, i] * norms[:, j]
        cosines.append(np.divide(grams[:, i, j], product, out=np.zeros(len(grams)), where=product > 0))
    cosine = np.clip(np.mean(cosines, axis=0), -1, 1)
    below = 1 + (k - 1) * cosine
    singular = np.abs(below) < 1e-6
    return np.where(singular, 0.0, k * cosine / np.where(singular, 1.0, below))
