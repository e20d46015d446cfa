"""Add the difference of two models to a third, as image-model communities do; the analogy of Ilharco et al. 2022."""

from __future__ import annotations

from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Scale

__all__ = ["add_difference"]


@method(paper="https://arxiv.org/abs/2212.04089", locality="element", min_models=2, max_models=2)
def add_difference(deltas: Deltas, *, scale: Scale = 1.0) -> Array:
    """Add to the base what the first model has over the second: θ₀ + λ(θ_A − θ_B). `[2, *shape] -> [*shape]`.

    `models` lists A, then B; `base_model` is what the difference is added to. "A is to B as the result is to the base":
    an inpainting model less its origin, on another model; section 5 of the paper.

    Use it to carry what training taught one model (inpainting, say) over to another of the same family.
    """
    return scale * (deltas[0] - deltas[1])
