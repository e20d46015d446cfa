"""Weighted average of weights. Wortsman et al. 2022, "Model soups", eq. 1 with weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plait import ops
from plait.methods.method import method
from plait.methods.vocabulary import Array, Normalize, Weight, Weights

__all__ = ["linear"]

_CANCELLED = 1e-6
"""Weights whose sum is this part of their magnitudes, or less, have no average: rounding alone would be left."""


def _check(values: Mapping[str, Any]) -> str:
    weight = [float(one) for one in values["weight"]]
    if values["normalize"] and abs(sum(weight)) <= _CANCELLED * sum(map(abs, weight)):
        return f"the weights {weight} add up to 0 and are divided by their sum; change one, or set normalize: false"
    return ""


@method(paper="https://arxiv.org/abs/2203.05482", locality="element", check=_check)
def linear(weights: Weights, *, weight: Weight, normalize: Normalize = True) -> Array:
    """Average the models' weights: Σ wᵢθᵢ / Σ wᵢ. `[k, *shape] -> [*shape]`.

    With `normalize: false`, the plain sum Σ wᵢθᵢ.

    Use it first: it is the cheapest, and for fine-tunes of one base on alike data (model soups) hard to beat.
    """
    return ops.weighted_sum(weights, weight / weight.sum() if normalize else weight)
