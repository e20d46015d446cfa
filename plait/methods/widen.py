"""WIDEN: weight each column by how much its length and its direction changed. Yu et al. 2024, section 3.3."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt

from plait import ops
from plait.methods.method import method
from plait.methods.vocabulary import Array, Parameter, Weights

__all__ = ["widen"]

Numbers = npt.NDArray[np.float64]

Ratio = Annotated[
    float, Parameter(float, "What counts as important: a significance above this many times the model's mean.", low=0)
]
Score = Annotated[float, Parameter(float, "Weight of what is important.")]
Vectors = Annotated[
    str,
    Parameter(
        str,
        "What of a matrix is taken as one vector: columns (inputs of a linear layer), or rows (tokens of an embedding).",
        choices=("columns", "rows"),
    ),
]


@method(paper="https://arxiv.org/abs/2408.03092", locality="matrix", base="first", min_models=2)
def widen(weights: Weights, *, ratio: Ratio = 1.0, calibration: Score = 1.0, vectors: Vectors = "columns") -> Array:
    """Add the deltas, each column weighted by its significance: θ₀ + Σ ½(s(Δm) + s(Δd))ᵢ δᵢ. `[k, *shape] -> [*shape]`.

    Δm is the change of a column's L2 norm, Δd = 1 − cos the change of its direction; each is replaced by its rank
    among the model's columns, from 0 to 1. s is the softmax of that over the models, and `calibration` where the rank
    is above `ratio` times the model's mean rank. For a vector (norms, biases) s is of |δ| itself, entry by entry.

    The official code takes the rows of the token embedding, which a method cannot tell from other matrices; so write
    `vectors: [{component: embeddings, value: rows}, {value: columns}]`. A column of zeros, whose direction the official
    code leaves undefined, has cosine 0 with every other. Of a tensor with more than two axes, the last two are a matrix.

    Use it to merge models that are at very different distances from the base, such as one that was pre-trained further
    and one that was tuned on instructions.
    """
    base, deltas = weights[0], weights[1:] - weights[0]
    columns = vectors == "columns" and len(base.shape) > 1
    if len(base.shape) < 2:
        laid = deltas.reshape(len(deltas), -1, 1)
        size = np.sqrt(np.einsum("vii->iv", ops.gram_of_rows(laid)))  # |δ|, exactly
        score = _scores(size, 1, ratio, calibration)
    else:
        laid = _laid(deltas, columns)
        changes = _changes(ops.gram_of_rows(_laid(weights, columns)))
        count = base.shape[-1] if columns else base.shape[-2]
        ranks = [ops.ranks(change.reshape(len(deltas), -1, count)) for change in changes]
        score = np.mean([_scores(rank, 1 / count, ratio, calibration) for rank in ranks], axis=0)
    merged = ops.weighted_rows(laid, score.reshape(len(deltas), -1).T)
    if columns:
        return base + merged.reshape(*base.shape[:-2], base.shape[-1], base.shape[-2]).swapaxes(-1, -2)
    return base + merged.reshape(base.shape)


def _laid(stack: Array, columns: bool) -> Array:
    """`[k, …, rows, columns] -> [k, vectors, entries]`."""
    turned = stack.swapaxes(-1, -2) if columns else stack
    return turned.reshape(len(stack), -1, turned.shape[-1])


def _changes(gram: Numbers) -> tuple[Numbers, Numbers]:
    """How much each vector's length and direction changed. `[vectors, 1 + k, 1 + k] -> two of [k, vectors]`."""
    length = np.sqrt(np.einsum("vii->iv", gram))
    product = length[1:] * length[0]
    cosine = np.divide(gram[:, 0, 1:].T, product, out=np.zeros_like(product), where=product > 0)
    turn = np.where(length[1:] + length[0] > 0, 1 - cosine, 0)
    return np.abs(length[1:] - length[0]), np.maximum(turn, 0)


def _scores(significance: Numbers, unit: float, ratio: float, calibration: float) -> Numbers:
    """Softmax over the models of `unit` times the significance, or the calibration where it is above the mean."""
    power = ops.exp((significance - significance.max(axis=0)) * unit)
    # (both sides times the number of vectors: of ranks, these are whole numbers)
    important = significance * significance.shape[-1] > ratio * ops.row_sum(significance)
    return np.where(important, calibration, power / sum(power))
