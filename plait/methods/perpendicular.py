"""What a second delta adds to the first: only its component at a right angle. As in sd-mecha's add_perpendicular."""

from __future__ import annotations

import numpy as np

from plait.methods.method import method
from plait.methods.vocabulary import Coefficients, DeltasGram, Scale, Weight

__all__ = ["perpendicular"]


@method(
    paper="https://github.com/ljleb/sd-mecha/blob/main/sd_mecha/extensions/builtin/merge_methods/linear.py",
    locality="span",
    min_models=2,
    max_models=2,
)
def perpendicular(gram: DeltasGram, *, weight: Weight = 1.0, scale: Scale = 1.0) -> Coefficients:
    """Add to the first delta what the second has at a right angle to it: θ₀ + λ(w₁δ₁ + w₂(δ₂ − ⟨δ₁,δ₂⟩/‖δ₁‖² δ₁)).

    Per tensor, each taken as one vector; the models in the order of the recipe. With weights 1 and α it is sd-mecha's
    `add_perpendicular`, with 0 and 1 its `perpendicular_component`. All of δ₂ is perpendicular to a δ₁ of zero (there:
    nothing).

    Use it to add to one fine-tune only what is new in a second.
    """
    along = gram[0, 1] / gram[0, 0] if gram[0, 0] > 0 else 0.0
    return scale * np.array([weight[0] - weight[1] * along, weight[1]])
