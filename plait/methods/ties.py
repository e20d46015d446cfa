"""TIES: trim, elect sign, merge. Yadav et al. 2023, algorithm 1."""

from __future__ import annotations

from typing import Annotated

from plait import ops
from plait.methods.measures import Threshold, kept_norm
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Density, Int8Mask, Normalize, Rescale, Scale, Scope, Weight

__all__ = ["agree", "rescaled", "ties"]

TrimmedNorm = Annotated[Array, kept_norm(lambda deltas, p, _: ops.trim(deltas, p["threshold"]))]


@method(paper="https://arxiv.org/abs/2306.01708", locality="measured")
def ties(
    deltas: Deltas,
    *,
    threshold: Threshold,
    kept_norm: TrimmedNorm,
    weight: Weight,
    density: Density = 1.0,
    scale: Scale = 1.0,
    normalize: Normalize = True,
    rescale: Rescale = "none",
    scope: Scope = "tensor",
    int8_mask: Int8Mask = False,
) -> Array:
    """Keep each delta's largest entries, elect a sign per entry, average those that agree. `[k, *shape] -> [*shape]`.

    θ₀ + λ Σ wᵢδ̂ᵢ / Σ wᵢ over the models whose trimmed entry has the elected sign, sgn Σ wᵢδ̂ᵢ (0 counts as +). The
    paper ranks magnitudes over the whole model (`scope: model`) and has no weights; as in mergekit the default ranks
    within each tensor and weights vote. Entries equal to the threshold are all kept, as in the official code.
    """
    del scope, int8_mask
    kept = ops.trim(deltas, threshold)
    return scale * agree(rescaled(kept, kept_norm, density, rescale), weight, normalize=normalize)


def rescaled(kept: Array, norm: Array, density: Array, rescale: str) -> Array:
    """Make up for what was dropped: by the L1 norm, by the density (0 leaves nothing to scale), or not at all."""
    if rescale == "none" or (density == 1).all():
        return kept
    return ops.scale(kept, norm if rescale == "l1" else 1 / (density + (density == 0)))


def agree(kept: Array, weight: Array, *, normalize: bool) -> Array:
    """Elect a sign per entry and merge the entries that have it: their weighted mean, or sum."""
    sign = ops.elect(kept, weight)
    return ops.agreeing_mean(kept, sign, weight) if normalize else ops.agreeing_sum(kept, sign, weight)
