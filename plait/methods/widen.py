"""WIDEN: weight each column by how much its length and its direction changed. Yu et al. 2024, section 3.3."""

from __future__ import annotations

from typing import Annotated

from plait import ops
from plait.methods.method import method
from plait.methods.vocabulary import Array, Parameter, Weights

__all__ = ["widen"]

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
    code leaves undefined, points nowhere: its direction is the zero vector. Of a tensor with more than two axes, the
    last two are a matrix.
    """
    base, deltas = weights[0], weights[1:] - weights[0]
    if len(base.shape) < 2:
        score = _scores(abs(deltas).reshape(len(deltas), -1), 1, ratio, calibration).reshape(deltas.shape)
    else:
        lengths, turns = _changes(weights if vectors == "rows" else weights.swapaxes(-1, -2))
        unit = 1 / lengths.shape[-1]  # ranks count from 0 to 1
        by_length, by_turn = (_scores(ops.ranks(change), unit, ratio, calibration) for change in (lengths, turns))
        score = 0.5 * (by_length + by_turn)
        score = score[..., None] if vectors == "rows" else score[..., None, :]
    merged = base
    for delta, share in zip(deltas, score, strict=True):
        merged = merged + share * delta
    return merged


def _changes(weights: Array) -> tuple[Array, Array]:
    """How much each vector's length and direction changed. `[1 + k, …, vectors, entries] -> two of [k, …, vectors]`."""
    length = ops.row_norm(weights)
    direction = weights / ops.where(length > 0, length, 1)
    bend = direction[1:] - direction[0]
    turn = ops.row_sum(bend * bend)  # 2 (1 − cos), without what the 1 would swallow
    return abs(length[1:] - length[0])[..., 0], turn[..., 0]


def _scores(significance: Array, unit: float, ratio: float, calibration: float) -> Array:
    """Softmax over the models of `unit` times the significance, or the calibration where it is above the mean."""
    most = significance[0]
    for other in significance[1:]:
        most = ops.maximum(most, other)
    power = ops.exp((significance - most) * unit)
    total = power[0]
    for other in power[1:]:
        total = total + other
    # (both sides times the number of vectors: of ranks, neither is then rounded to the wrong side)
    important = significance * significance.shape[-1] > ratio * ops.row_sum(significance)
    return ops.where(important, calibration, power / total)
