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
Totals = Annotated[
    Array, summed(lambda deltas, *_: ops.stacked([*deltas, deltas[0] * 0 + 1]), scoped=True, reads=(), uses=())
]
"""`[k + 1]`: Σ δᵢ, and the number of entries."""
Squares = Annotated[Array, summed(lambda deltas, *_: deltas, squared=True, scoped=True, reads=(), uses=())]
"""`[k]`: Σ δᵢ²."""


@method(paper="https://arxiv.org/abs/2311.13171", locality="measured")
def compeft(
    deltas: Deltas,
    *,
    threshold: Threshold,
    totals: Totals,
    squares: Squares,
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

    Use it to see what an expert loses when it is stored as a few signs, or to merge experts that are.
    """
    del density, scope
    signs = ops.sign(ops.trim(deltas, threshold))
    return scale * ops.weighted_sum(signs, weight * alpha * _deviation(totals[:-1], squares, totals[-1]))


def _deviation(total: Array, squares: Array, entries: Array) -> Array:
    """The sample standard deviation of each model; 0 of a single entry."""
    entries = ops.maximum(entries, 1)
    return ops.sqrt(ops.maximum(squares - total * total / entries, 0) / ops.maximum(entries - 1, 1))
