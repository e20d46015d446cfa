"""DARE: drop entries of the deltas at random and rescale the rest. Yu et al. 2023, section 3.2."""

from __future__ import annotations

from typing import Annotated

from plait import ops
from plait.methods.measures import kept_norm
from plait.methods.method import method
from plait.methods.ties import agree, rescaled
from plait.methods.vocabulary import Array, Deltas, Density, Int8Mask, Normalize, Random, Rescale, Scale, Weight

__all__ = ["dare_linear", "dare_ties"]

DroppedNorm = Annotated[Array, kept_norm(lambda deltas, p, rng: ops.drop(deltas, p["density"], rng))]


@method(paper="https://arxiv.org/abs/2311.03099", locality="measured")
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
    tensor's L1 norm instead. The mask depends on the seed, the tensor's name, the model's content and the entry.
    """
    del int8_mask
    total = weight.sum()
    share = weight / total if normalize and total != 0 else weight
    return ops.weighted_sum(rescaled(ops.drop(deltas, density, rng), kept_norm, density, rescale), scale * share)


@method(paper="https://arxiv.org/abs/2311.03099", locality="measured")
def dare_ties(
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
    """Drop and rescale as DARE, then elect a sign per entry and add up those that agree, as TIES.

    `[k, *shape] -> [*shape]`. With `normalize: true` the sum becomes TIES' weighted mean.
    """
    del int8_mask
    kept = rescaled(ops.drop(deltas, density, rng), kept_norm, density, rescale)
    return scale * agree(kept, weight, normalize=normalize)
