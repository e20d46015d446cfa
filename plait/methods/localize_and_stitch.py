"""Localize-and-Stitch without data: the few largest changes of each model, side by side. He et al. 2024, section 3."""

from __future__ import annotations

from plait import ops
from plait.methods.measures import Threshold
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Density, Scale, Scope, Weight

__all__ = ["localize_and_stitch"]


@method(paper="https://arxiv.org/abs/2408.13656", locality="measured")
def localize_and_stitch(
    deltas: Deltas,
    *,
    threshold: Threshold,
    density: Density = 0.05,
    weight: Weight = 1.0,
    scale: Scale = 1.0,
    scope: Scope = "model",
) -> Array:
    """Keep the largest entries of each delta; average where models overlap: θ₀ + Σ wᵢmᵢδᵢ / Σ wᵢmᵢ. `[k, *shape] -> [*shape]`.

    The dataless localisation: mᵢ marks the `density` largest |δᵢ| of the whole model (5 % in the authors' language
    experiments, 10 % in vision; learned masks of 1 % need data). Entries equal to the threshold are kept; the official
    code drops them. An unchanged entry is in no mask. The paper has no weights.

    Use it for many models with little in common, where sums of whole deltas disturb each other.
    """
    del density, scope
    kept = ops.trim(deltas, threshold)
    share = ops.weighted_sum(abs(ops.sign(kept)), weight)
    stitched = ops.weighted_sum(kept, weight) / ops.where(share == 0, 1, share)
    return scale * ops.where(share == 0, 0, stitched)
