"""NuSLERP: SLERP of two models by their weights, of whole tensors, rows or columns, or of differences from a base."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from plait import ops
from plait.methods.method import method
from plait.methods.vocabulary import Array, Coefficients, Parameter, Weight, Weights, WeightsGram

__all__ = ["nuslerp"]

_STRAIGHT = 2.0**-24
"""sin²Ω up to which the line is straight: float32 cannot tell such a cos²Ω from 1."""
_CANCELLED = 1e-6
"""Weights whose sum is this part of their magnitudes, or less, have no ratio."""
Flatten = Annotated[bool, Parameter(bool, "Take each tensor as one vector; false: its rows, or its columns.")]
RowWise = Annotated[
    bool, Parameter(bool, "With nuslerp_flatten: false, vectors run along the first axis; false: along the last.")
]


@method(
    paper="https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md",
    locality="span",
    base="origin",
    min_models=2,
    max_models=2,
)
def nuslerp(
    gram: WeightsGram, *, weight: Weight, nuslerp_flatten: Flatten = True, nuslerp_row_wise: RowWise = False
) -> Coefficients:
    """Interpolate along the arc, (sin((1−t)Ω)θ₁ + sin(tΩ)θ₂) / sin Ω with t = w₂ / (w₁ + w₂); of deltas, with a base.

    Ω is the angle between the two tensors, which keep their own lengths; where they are collinear the line is straight.
    A zero vector counts as at a right angle to the other. Weights that cancel give t = 1/2. As in mergekit,
    `nuslerp_row_wise: true` means that the first axis runs within a vector: an angle for each column of a matrix.

    Use it as `slerp`, where weights say more than a position, or to interpolate two models' changes from a base.
    """
    del nuslerp_flatten, nuslerp_row_wise
    return _arc(np.asarray(gram)[None], weight)[0]


@nuslerp.when(nuslerp_flatten=False, nuslerp_row_wise=True, locality="matrix")
def along_the_first_axis(
    weights: Weights, *, weight: Weight, nuslerp_flatten: Flatten = False, nuslerp_row_wise: RowWise = True
) -> Array:
    """Interpolate the vectors along the first axis, each by its own angle. `[2, *shape] -> [*shape]`."""
    del nuslerp_flatten, nuslerp_row_wise
    if weights.ndim < 3:  # a vector is one vector still
        return _by_vector(weights.reshape(2, 1, -1), weight).reshape(weights.shape[1:])
    turned = weights.swapaxes(1, -1)
    merged = _by_vector(turned.reshape(2, -1, turned.shape[-1]), weight)
    return merged.reshape(turned.shape[1:]).swapaxes(0, -1)


@nuslerp.when(nuslerp_flatten=False, locality="row")
def along_the_last_axis(
    weights: Weights, *, weight: Weight, nuslerp_flatten: Flatten = False, nuslerp_row_wise: RowWise = False
) -> Array:
    """Interpolate the rows, each by its own angle. `[2, rows, columns] -> [rows, columns]`."""
    del nuslerp_flatten, nuslerp_row_wise
    return _by_vector(weights, weight)


def _by_vector(rows: Array, weight: Array) -> Array:
    return ops.weighted_rows(rows, _arc(ops.gram_of_rows(rows), np.array(weight.reshape(-1).tolist())))


def _arc(grams: Array, weight: Array) -> Array:
    """Coefficients for a batch of Gram matrices: `[n, 2, 2] -> [n, 2]`."""
    total = weight.sum()
    t = 0.5 if abs(total) <= _CANCELLED * abs(weight).sum() else weight[1] / total
    product = np.sqrt(grams[:, 0, 0]) * np.sqrt(grams[:, 1, 1])
    cosine = np.divide(grams[:, 0, 1], product, out=np.zeros(len(grams)), where=product > 0).clip(-1, 1)
    straight = 1 - cosine**2 <= _STRAIGHT
    angle = np.arccos(np.where(straight, 0, cosine))
    arc = np.stack([np.sin((1 - t) * angle), np.sin(t * angle)], axis=-1) / np.sin(angle)[:, None]
    return np.where(straight[:, None], [1 - t, t], arc)
