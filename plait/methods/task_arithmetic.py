"""Task vectors added to the base. Ilharco et al. 2022, section 2."""

from __future__ import annotations

from plait import ops
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Int8Mask, Normalize, Scale, Weight

__all__ = ["task_arithmetic"]


@method(paper="https://arxiv.org/abs/2212.04089", locality="element")
def task_arithmetic(
    deltas: Deltas, *, weight: Weight, scale: Scale = 1.0, normalize: Normalize = False, int8_mask: Int8Mask = False
) -> Array:
    """Add the weighted deltas: θ₀ + λ Σ wᵢδᵢ. `[k, *shape] -> [*shape]`.

    With `normalize: true` the sum is divided by Σ wᵢ, or left as it is where that is 0.

    Use it to add what fine-tunes have learnt to their base or, with a negative weight, to take it away.
    """
    del int8_mask
    total = weight.sum()
    share = weight / total if normalize and total != 0 else weight
    return ops.weighted_sum(deltas, scale * share)
