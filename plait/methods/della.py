"""DELLA: drop at random, small entries sooner than large ones. Deep et al. 2024, section 3 (MagPrune)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from plait import ops
from plait.errors import PlaitError
from plait.methods.dare import add_up
from plait.methods.measures import Measure, kept_norm
from plait.methods.method import method
from plait.methods.ties import agree
from plait.methods.vocabulary import (
    Array,
    Deltas,
    Density,
    Int8Mask,
    Measured,
    Merge,
    Normalize,
    Parameter,
    Random,
    Rescale,
    Scale,
    Vote,
    Weight,
)

__all__ = ["della", "della_linear"]


def _chances(deltas: Array, density: Array, epsilon: Array) -> Array:
    """Give each entry its chance to stay: density − ε for the smallest of its row, density + ε for the largest.

    `[k, rows, columns]` of numbers in [0, 1], in even steps by rank. A density of 0 or 1 holds for all entries alike,
    and so does any density in a row of one.
    """
    place = ops.ranks(deltas) * (2 / max(1, deltas.shape[-1] - 1)) - int(deltas.shape[-1] > 1)
    inside = (density > 0) & (density < 1)
    return ops.clamp(ops.scale(place, epsilon * inside) + ops.scale(place * 0 + 1, density), 0, 1)


def _sampled(deltas: Array, p: Mapping[str, Any], rng: Any) -> Array:
    return ops.drop_ranked(deltas, p["density"], p["epsilon"], rng)


def _norm(parameters: Mapping[str, Any], k: int, size: int) -> Measure:
    """Make the measure of what is kept; refuse chances outside [0, 1], before anything is read."""
    for density, epsilon in zip(parameters["density"].flat, parameters["epsilon"].flat, strict=True):
        if 0 < density < 1 and (density - epsilon < 0 or density + epsilon > 1):
            chances = f"from {density - epsilon:.4g} to {density + epsilon:.4g}"
            raise PlaitError(
                f"DELLA with density {density:g} and epsilon {epsilon:g} keeps entries with probabilities {chances}; "
                "expected 0 to 1. Choose an epsilon of at most the density, and at most 1 less the density."
            )
    return kept_norm(_sampled).make(parameters, k, size)


SampledNorm = Annotated[Array, Measured(_norm)]
Epsilon = Annotated[
    Array,
    Parameter(
        float,
        "Half of the window: chances to stay run from density − epsilon to density + epsilon.",
        per_model=True,
        low=0,
        high=0.5,
    ),
]
_PAPER = {"weight": 1.0, "density": 0.7, "epsilon": 0.07, "scale": 1.1, "rescale": "probability"}


def _rescaled(kept: Array, deltas: Array, numbers: tuple[Array, Array], norm: Array, rescale: str) -> Array:
    if rescale == "probability":
        chances = _chances(deltas, *numbers)
        return kept / ops.where(chances == 0, 1, chances)
    return ops.scale(kept, norm) if rescale == "l1" else kept


@method(paper="https://arxiv.org/abs/2406.11617", locality="row", variants={"mergekit": {}, "paper": _PAPER})
def della(
    deltas: Deltas,
    *,
    rng: Random,
    kept_norm: SampledNorm,
    weight: Weight,
    density: Density = 1.0,
    epsilon: Epsilon = 0.15,
    scale: Scale = 1.0,
    merge: Merge = "mean",
    vote: Vote = "weighted",
    rescale: Rescale = "l1",
    int8_mask: Int8Mask = False,
) -> Array:
    """Keep each entry with a chance that grows with its rank in its row, rescale, elect signs, average. `[k, *shape] -> [*shape]`.

    pᵣ = d − ε + 2ε (r − 1) / (n − 1), d the density, for rank r of n by |δ|, ascending; then as TIES. The paper divides
    what is kept by its pᵣ (`rescale: probability`); mergekit, and so the default, restores the tensor's L1 norm.
    `variant: paper` has the numbers of the paper's code: density 0.7, a window 2ε of 0.14, λ 1.1, no weights. A vector
    is one row.

    Use it where DARE loses entries that matter: here large changes are kept more often than small ones.
    """
    del int8_mask
    kept = ops.drop_ranked(deltas, density, epsilon, rng)
    kept = _rescaled(kept, deltas, (density, epsilon), kept_norm, rescale)
    return scale * agree(kept, weight, merge=merge, vote=vote)


@method(
    paper="https://arxiv.org/abs/2406.11617",
    locality="row",
    variants={"mergekit": {}, "paper": {**_PAPER, "normalize": True}},
)
def della_linear(
    deltas: Deltas,
    *,
    rng: Random,
    kept_norm: SampledNorm,
    weight: Weight,
    density: Density = 1.0,
    epsilon: Epsilon = 0.15,
    scale: Scale = 1.0,
    normalize: Normalize = False,
    rescale: Rescale = "l1",
    int8_mask: Int8Mask = False,
) -> Array:
    """Keep entries as DELLA does, and add up: θ₀ + λ Σ wᵢ m̃ᵢδᵢ, without a vote. `[k, *shape] -> [*shape]`.

    The paper's ablation without election (`variant: paper`) takes the mean; mergekit, and so the default, the sum.

    Use it as `della`, where changes hardly conflict.
    """
    del int8_mask
    kept = ops.drop_ranked(deltas, density, epsilon, rng)
    kept = _rescaled(kept, deltas, (density, epsilon), kept_norm, rescale)
    return add_up(kept, weight, scale=scale, normalize=normalize)
