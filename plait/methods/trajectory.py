"""Averages along a trajectory: checkpoints of one training run, oldest first in the recipe."""

from __future__ import annotations

from typing import Annotated

from plait import ops
from plait.methods.method import method
from plait.methods.vocabulary import Array, Parameter, Weights

__all__ = ["ema", "swa", "wma"]

Newest = Annotated[float, Parameter(float, "Share of each next checkpoint; 1 leaves the newest alone.", low=0, high=1)]


@method(paper="https://arxiv.org/abs/1803.05407", locality="element")
def swa(weights: Weights) -> Array:
    """Average the checkpoints: Σ θᵢ / N. `[k, *shape] -> [*shape]`.

    Stochastic weight averaging (Izmailov et al. 2018); the simple moving average of pre-training checkpoints
    ("PMA", Li et al. 2025), which found it as good as `ema` and `wma` late in training. Their order does not matter.

    Use it on the last checkpoints of a run whose learning rate did not decay, in place of the decay.
    """
    return _weighted(weights, [1.0] * len(weights))


@method(paper="https://arxiv.org/abs/2505.12082", locality="element")
def ema(weights: Weights, *, alpha: Newest = 0.2) -> Array:
    """Average with exponentially rising weights: Mᵢ = αθᵢ + (1 − α)Mᵢ₋₁, from M₁ = θ₁. `[k, *shape] -> [*shape]`.

    Models are listed oldest first. As the paper starts from the oldest checkpoint, that one has the weight
    (1 − α)^(N−1), which may be the largest of all.

    Use it on checkpoints of a run that is still getting better, so that newer ones count more.
    """
    k = len(weights)
    shares = [alpha * (1 - alpha) ** (k - 1 - i) for i in range(k)]
    return ops.weighted_sum(weights, [(1 - alpha) ** (k - 1), *shares[1:]])


@method(paper="https://arxiv.org/abs/2505.12082", locality="element")
def wma(weights: Weights) -> Array:
    """Average with linearly rising weights: Σ iθᵢ / Σ i, i = 1 … N. `[k, *shape] -> [*shape]`.

    Models are listed oldest first; the newest counts N times as much as the oldest.

    Use it like `ema`, where the weights should rise evenly.
    """
    return _weighted(weights, [1.0 + i for i in range(len(weights))])


def _weighted(weights: Array, shares: list[float]) -> Array:
    return ops.weighted_sum(weights, [share / sum(shares) for share in shares])
