"""MagMax: at each entry, the largest change wins. Marczak et al. 2024, eq. 2."""

from __future__ import annotations

from plait import ops
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Scale

__all__ = ["magmax"]


@method(paper="https://arxiv.org/abs/2407.06322", locality="element")
def magmax(deltas: Deltas, *, scale: Scale = 0.5) -> Array:
    """Take, entry by entry, the delta of greatest magnitude: θ₀ + λ δ with |δ| = maxᵢ |δᵢ|. `[k, *shape] -> [*shape]`.

    Use it for models that were fine-tuned one after another, or where each has changed other entries.
    """
    return scale * ops.largest(deltas)
