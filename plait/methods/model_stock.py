"""Model Stock: how far to go from the base to the average, read off the angles between models. Jang et al. 2024."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Annotated

import numpy as np

from plait import ops
from plait.methods.method import method
from plait.methods.vocabulary import Array, Coefficients, Deltas, DeltasGram, Parameter

__all__ = ["model_stock"]

FilterWise = Annotated[bool, Parameter(bool, "Take one ratio for each row, not one for the whole tensor.")]
Cosine = Annotated[
    str,
    Parameter(
        str,
        "What cos θ is for more than two models: the mean over all pairs, the cosine of all pairs' mean angle "
        "(fusion_bench's), or the mean over neighbours in the recipe (sd-mecha's).",
        choices=("mean", "mean_angle", "neighbours"),
    ),
]


@method(paper="https://arxiv.org/abs/2403.19522", locality="span", min_models=2)
def model_stock(gram: DeltasGram, *, filter_wise: FilterWise = False, cosine: Cosine = "mean") -> Coefficients:
    """Interpolate: t·mean(θᵢ) + (1−t)·θ₀ with t = N cos θ / (1 + (N−1) cos θ), per tensor (eqs. 6 and 7).

    cos θ is the mean cosine over all pairs of deltas, as in mergekit, or what `cosine` says; a delta of zero length has
    cosine 0 with every other. `filter_wise: true` takes one t per row of the tensor instead.

    Use it for two fine-tunes or more on the same data (other seeds or settings), in place of a soup of many.
    """
    del filter_wise
    return _ratio(np.asarray(gram)[None], cosine)[0] * np.full(len(gram), 1 / len(gram))


@model_stock.when(filter_wise=True, locality="row")
def filter_wise_model_stock(deltas: Deltas, *, filter_wise: FilterWise = True, cosine: Cosine = "mean") -> Array:
    """Take one interpolation ratio per row. `[k, rows, columns] -> [rows, columns]`."""
    del filter_wise
    ratio = _ratio(ops.gram_of_rows(deltas), cosine)
    return ops.weighted_rows(deltas, np.repeat(ratio[:, None] / len(deltas), len(deltas), axis=1))


def _ratio(grams: Array, rule: str) -> Array:
    """Eq. 7 for a batch of Gram matrices: `[n, k, k] -> [n]`. 0 at the singularity, where no ratio is finite."""
    k = grams.shape[-1]
    norms = np.sqrt(np.einsum("nii->ni", grams))
    cosines = []
    for i, j in pairwise(range(k)) if rule == "neighbours" else combinations(range(k), 2):
        product = norms[:, i] * norms[:, j]
        cosine = np.divide(grams[:, i, j], product, out=np.zeros(len(grams)), where=product > 0)
        cosines.append(np.clip(cosine, -1, 1))
    mean = np.cos(np.mean(np.arccos(cosines), axis=0)) if rule == "mean_angle" else np.mean(cosines, axis=0)
    below = 1 + (k - 1) * mean
    singular = np.abs(below) < 1e-6
    return np.where(singular, 0.0, k * mean / np.where(singular, 1.0, below))
