"""DARE: drop entries of the deltas at random and rescale the rest. Yu et al. 2023, section 3.2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from plait import ops
from plait.methods.measures import kept_norm, magnitude_threshold, summed
from plait.methods.method import method
from plait.methods.ties import agree, majority_of, rescaled, sides
from plait.methods.vocabulary import (
    Array,
    Deltas,
    Density,
    Int8Mask,
    Merge,
    Normalize,
    Parameter,
    Random,
    Rescale,
    Scale,
    Scope,
    Vote,
    Weight,
    ZeroVote,
)

__all__ = ["add_up", "dare_linear", "dare_ties"]


def add_up(kept: Array, weight: Array, *, scale: float, normalize: bool) -> Array:
    """Add up the weighted deltas; `normalize` divides by the sum of the weights, where that is not 0."""
    total = weight.sum()
    share = weight / total if normalize and total != 0 else weight
    return ops.weighted_sum(kept, scale * share)


def _dropped(deltas: Array, p: Mapping[str, Any], rng: Any) -> Array:
    return ops.drop(deltas, p["density"], rng)


def _kept(deltas: Array, p: Mapping[str, Any], rng: Any) -> Array:
    dropped = _dropped(deltas, p, rng)
    trimmed = dropped if (p["trim"] == 1).all() else ops.trim(dropped, p["threshold"])
    return rescaled(trimmed, p["kept_norm"], p["density"], p["rescale"])


def _voted(deltas: Array, p: Mapping[str, Any], rng: Any) -> Array:
    return majority_of(_kept(deltas, p, rng), p["weight"], p["vote"])


DroppedNorm = Annotated[Array, kept_norm(_dropped)]
DroppedThreshold = Annotated[Array, magnitude_threshold(_dropped, lambda p: p["trim"], reads=("trim",))]
Majority = Annotated[
    Array, summed(_voted, scoped=True, needed=lambda p: p["zero_vote"] == "majority", reads=("zero_vote",))
]
Trim = Annotated[
    Array,
    Parameter(
        float,
        "Fraction of all entries, the largest after the drop, that is kept before the vote.",
        per_model=True,
        low=0,
        high=1,
    ),
]
_PAPER = {"weight": 1.0, "density": 0.8, "rescale": "probability"}
_PAPER_TIES = {"trim": 0.2, "scope": "model", "merge": "mean", "vote": "total", "zero_vote": "majority"}


@method(
    paper="https://arxiv.org/abs/2311.03099",
    locality="measured",
    variants={"mergekit": {}, "paper": {**_PAPER, "normalize": True}},
)
def dare_linear(
    deltas: Deltas,
    *,
    rng: Random,
    kept_norm: DroppedNorm,
    weight: Weight,
    density: Density = 1.0,
    scale: Scale = 1.0,
    normalize: Normalize = False,
    rescale: Rescale = "l1",
    int8_mask: Int8Mask = False,
) -> Array:
    """Drop each entry with probability 1 − density, rescale, add up: θ₀ + λ Σ wᵢ m̃ᵢδᵢ. `[k, *shape] -> [*shape]`.

    The paper divides what is kept by the density (`rescale: probability`); mergekit, and so the default, restores the
    tensor's L1 norm instead. `variant: paper` is the merge that the paper's code comes with: a fifth dropped, the rest
    divided by 0.8, the models averaged. The mask depends on the seed, the tensor's name, the model's content and the
    entry.

    Use it for fine-tunes that changed their base little, so that most changes can be dropped without loss.
    """
    del int8_mask
    kept = rescaled(ops.drop(deltas, density, rng), kept_norm, density, rescale)
    return add_up(kept, weight, scale=scale, normalize=normalize)


@method(
    paper="https://arxiv.org/abs/2311.03099",
    locality="measured",
    variants={"mergekit": {}, "paper": {**_PAPER, **_PAPER_TIES}},
)
def dare_ties(
    deltas: Deltas,
    *,
    rng: Random,
    kept_norm: DroppedNorm,
    threshold: DroppedThreshold,
    majority: Majority,
    weight: Weight,
    density: Density = 1.0,
    scale: Scale = 1.0,
    merge: Merge = "sum",
    rescale: Rescale = "l1",
    trim: Trim = 1.0,
    vote: Vote = "weighted",
    zero_vote: ZeroVote = "plus",
    scope: Scope = "tensor",
    int8_mask: Int8Mask = False,
) -> Array:
    """Drop and rescale as DARE, then elect a sign per entry and add up those that agree, as TIES.

    `[k, *shape] -> [*shape]`. θ₀ + λ Σ wᵢ m̃ᵢδᵢ over the models that have the sign of Σ wᵢ m̃ᵢδᵢ. mergekit, and so the
    default, does not trim what DARE has kept, adds up and does not divide. The paper's code (`variant: paper`) goes on
    with all of TIES: the largest 20 % over the whole model, votes without weights, the mean of those that agree.

    Use it as `dare_linear`, where what is kept still conflicts in sign.
    """
    del scope, int8_mask
    dropped = ops.drop(deltas, density, rng)
    trimmed = dropped if (trim == 1).all() else ops.trim(dropped, threshold)
    kept = rescaled(trimmed, kept_norm, density, rescale)
    return scale * agree(kept, weight, merge=merge, vote=vote, zero=sides(zero_vote, majority))
