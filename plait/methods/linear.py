"""Weighted average of weights. Wortsman et al. 2022, "Model soups", eq. 1 with weights."""

from __future__ import annotations

from plait import ops
from plait.methods.method import method
from plait.methods.vocabulary import Array, Normalize, Weight, Weights

__all__ = ["linear"]


@method(paper="https://arxiv.org/abs/2203.05482", locality="element")
def linear(weights: Weights, *, weight: Weight, normalize: Normalize = True) -> Array:
    """Average the models' weights: Σ wᵢθᵢ / Σ wᵢ. `[k, *shape] -> [*shape]`.

    With `normalize: false`, the plain sum Σ wᵢθᵢ.

    Use it first: it is the cheapest, and for fine-tunes of one base on alike data (model soups) hard to beat.
    """
    return ops.weighted_sum(weights, weight / weight.sum() if normalize else weight)
