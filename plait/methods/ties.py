"""TIES: trim, elect sign, merge. Yadav et al. 2023, algorithm 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from plait import ops
from plait.methods.measures import Threshold, kept_norm, summed
from plait.methods.method import method
from plait.methods.vocabulary import (
    Array,
    Deltas,
    Density,
    Int8Mask,
    Merge,
    Rescale,
    Scale,
    Scope,
    Vote,
    Weight,
    ZeroVote,
)

__all__ = ["agree", "majority_of", "rescaled", "sides", "ties"]


def rescaled(kept: Array, norm: Array, density: Array, rescale: str) -> Array:
    """Make up for what was dropped: by the L1 norm, by the density (0 leaves nothing to scale), or not at all."""
    if rescale == "none" or (density == 1).all():
        return kept
    return ops.scale(kept, norm if rescale == "l1" else 1 / (density + (density == 0)))


def agree(kept: Array, weight: Array, *, merge: str, vote: str = "weighted", zero: float = 1.0) -> Array:
    """Elect a sign per entry, and merge the entries that have it; `zero` is the sign (±1) where the vote is 0.

    A vote of zero elects +; so where it is to elect −, all voices are turned around, and the sum is turned back.
    """
    voice = zero * (weight if vote == "weighted" else weight * 0 + 1)
    sign = ops.elect(ops.sign(kept) if vote == "frequency" else kept, voice)
    if merge in {"mean", "sum"} and (vote == "weighted" or (weight >= 0).all()):
        if merge == "mean":
            return ops.agreeing_mean(kept, sign, zero * weight)
        return ops.agreeing_sum(kept, sign, weight) if zero > 0 else -ops.agreeing_sum(kept, sign, -weight)
    agreeing = kept * voice * sign > 0
    entries = ops.where(agreeing, kept, 0)
    if merge == "max":
        return ops.largest(ops.scale(entries, weight))
    total = ops.weighted_sum(entries, weight)
    if merge == "sum":
        return total
    parts = ops.weighted_sum(ops.where(agreeing, kept * 0 + 1, 0), weight if merge == "mean" else weight * 0 + 1)
    return ops.where(parts == 0, 0, total / ops.where(parts == 0, 1, parts))


def majority_of(kept: Array, weight: Array, vote: str) -> Array:
    """Give the sign of the vote, entry by entry: -1, 0 or 1. Their sum over all entries is what the majority is of."""
    voice = weight if vote == "weighted" else weight * 0 + 1
    return ops.sign(ops.weighted_sum(ops.sign(kept) if vote == "frequency" else kept, voice))


def sides(zero_vote: str, majority: Array) -> float:
    """The sign of a vote of zero: −1 only where that goes to the majority, and more entries elected −."""
    return -1.0 if zero_vote == "majority" and bool((majority < 0).all()) else 1.0


def _trimmed(deltas: Array, p: Mapping[str, Any], _: Any) -> Array:
    return ops.trim(deltas, p["threshold"])


def _voted(deltas: Array, p: Mapping[str, Any], rng: Any) -> Array:
    kept = rescaled(_trimmed(deltas, p, rng), p["kept_norm"], p["density"], p["rescale"])
    return majority_of(kept, p["weight"], p["vote"])


def _asked(p: Mapping[str, Any]) -> bool:
    return bool(p["zero_vote"] == "majority")


TrimmedNorm = Annotated[Array, kept_norm(_trimmed)]
Majority = Annotated[Array, summed(_voted, scoped=True, needed=_asked, reads=("zero_vote",))]
_PAPER = {"weight": 1.0, "density": 0.2, "scope": "model", "vote": "total", "zero_vote": "majority"}


@method(paper="https://arxiv.org/abs/2306.01708", locality="measured", variants={"mergekit": {}, "paper": _PAPER})
def ties(
    deltas: Deltas,
    *,
    threshold: Threshold,
    kept_norm: TrimmedNorm,
    majority: Majority,
    weight: Weight,
    density: Density = 1.0,
    scale: Scale = 1.0,
    merge: Merge = "mean",
    vote: Vote = "weighted",
    zero_vote: ZeroVote = "plus",
    rescale: Rescale = "none",
    scope: Scope = "tensor",
    int8_mask: Int8Mask = False,
) -> Array:
    """Keep each delta's largest entries, elect a sign per entry, average those that agree. `[k, *shape] -> [*shape]`.

    θ₀ + λ Σ wᵢδ̂ᵢ / Σ wᵢ over the models whose trimmed entry has the elected sign, sgn Σ wᵢδ̂ᵢ. By default as mergekit:
    magnitudes are ranked within each tensor, weights vote, and a vote of 0 counts as +. The paper (`variant: paper`)
    ranks over the whole model, keeps the top 20 %, has no weights, and gives votes of 0 the majority of all elected
    signs. PEFT's TIES is `vote: total` (or `frequency`) with `merge: count`. Entries equal to the threshold are all
    kept, as in the official code, which keeps one entry more still.

    Use it for fine-tunes of one base on different tasks, whose changes conflict: the usual first choice there.
    """
    del scope, int8_mask
    kept = rescaled(ops.trim(deltas, threshold), kept_norm, density, rescale)
    return scale * agree(kept, weight, merge=merge, vote=vote, zero=sides(zero_vote, majority))
