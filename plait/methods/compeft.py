"""ComPEFT: a delta as a few signs and one number. Yadav et al. 2023."""

from __future__ import annotations

from typing import Annotated

from plait import ops
from plait.methods.measures import Threshold, summed
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Density, Parameter, Scale, Scope, Weight

__all__ = ["compeft"]

Alpha = Annotated[
    Array, Parameter(float, "Size of what is kept, in standard deviations of the delta.", per_model=True, low=0)
]
Moments = Annotated[
    Array,
    summed(lambda deltas, *_: ops.stacked([*deltas, *(deltas * deltas), deltas[0] * 0 + 1]), scoped=True, reads=()),
]
"""`[2k + 1]`: Σ δᵢ, Σ δᵢ², and the number of entries."""


@method(paper="https://arxiv.org/abs/2311.13171", locality="measured")
def compeft(
    deltas: Deltas,
    *,
    threshold: Threshold,
    moments: Moments,
    density: Density = 0.2,
    alpha: Alpha = 1.0,
    weight: Weight = 1.0,
    scale: Scale = 1.0,
    scope: Scope = "model",
) -> Array:
    """Keep the signs of each delta's largest entries, at one size: θ₀ + Σ wᵢ αᵢ std(δᵢ) sgn δ̂ᵢ. `[k, *shape] -> [*shape]`.

    δ̂ᵢ has the `density` largest magnitudes of the whole model, and the standard deviation (over n − 1) is the whole
    model's, before trimming. The authors tune density and α on validation data; these defaults are their code's, which
    keeps one entry more. Several models are compressed each, then added up by weight.
    """
    del density, scope
    signs = ops.sign(ops.trim(deltas, threshold))
    return scale * ops.weighted_sum(signs, weight * alpha * _deviation(moments))


def _deviation(moments: Array) -> Array:
    """The sample standard deviation of each model; 0 of a single entry."""
    k, entries = len(moments) // 2, ops.maximum(moments[-1], 1)
    total, squares = moments[:k], moments[k:-1]
    return ops.sqrt(ops.maximum(squares - total * total / entries, 0) / ops.maximum(entries - 1, 1))
