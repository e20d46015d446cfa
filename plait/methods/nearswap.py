"""NearSwap: where the two models are nearly equal, take the other's entry. The QuartetAnemoi-70B model's recipe."""

from __future__ import annotations

from typing import Annotated

from plait import ops
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Parameter

__all__ = ["nearswap"]

Reach = Annotated[
    float,
    Parameter(float, "How far an entry of the base may move; as large as the differences to be taken over.", low=0),
]


@method(paper="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001", locality="element", max_models=1)
def nearswap(deltas: Deltas, *, t: Reach) -> Array:
    """Interpolate by w = min(1, t/|δ|), entry by entry: w·θ₁ + (1−w)·θ₀. `[1, *shape] -> [*shape]`.

    As w·δ is δ cut to [−t, t], each entry moves toward the model by t at most, and becomes the model's where they are
    nearer than that. mergekit raises |δ| to 1e-6 before it divides, which matters only for t below 1e-6.

    Use it to strengthen one model with what another agrees to, where large differences are to be left alone.
    """
    return ops.clamp(deltas[0], -t, t)
