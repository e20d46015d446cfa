"""ExPO: go on in the direction of an alignment training. Zheng et al. 2024."""

from __future__ import annotations

from typing import Annotated

from plait import ops
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Parameter

__all__ = ["expo"]

Beyond = Annotated[
    float, Parameter(float, "How far beyond the model, in lengths of its delta; 0 is the model, −1 the base.")
]


@method(paper="https://arxiv.org/abs/2404.16792", locality="element", max_models=1)
def expo(deltas: Deltas, *, alpha: Beyond = 0.5) -> Array:
    """Extrapolate the model away from the base: θ + α(θ − θ₀) = θ₀ + (1 + α)δ. `[1, *shape] -> [*shape]`.

    The base is the checkpoint before alignment (SFT), the model the one after it (DPO, RLHF). The authors tune α from
    0.1 to 0.5 by a reward model; most of their published models have 0.5. Values below 0 interpolate.

    Use it on a model after DPO or RLHF, together with the one it was aligned from, for more of the same without
    training.
    """
    return ops.scale(deltas[0], 1 + alpha)
