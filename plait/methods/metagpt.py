"""MetaGPT: weights for the deltas that minimise a bound on the mean loss, without data. Zhou et al. 2024."""

from __future__ import annotations

from typing import Annotated

from plait import ops
from plait.methods.measures import summed
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Parameter, Scale

__all__ = ["metagpt"]

Over = Annotated[
    str, Parameter(str, "Over what lengths are taken: each tensor, or the whole model.", choices=("tensor", "model"))
]
Squares = Annotated[Array, summed(lambda deltas, *_: deltas, squared=True, scoped=True, reads=(), uses=())]
"""`[k]`: Σ δᵢ²."""


@method(paper="https://arxiv.org/abs/2406.11385", locality="measured")
def metagpt(deltas: Deltas, *, squares: Squares, scale: Scale = 1.0, scope: Over = "model") -> Array:
    """Add the deltas by their share of the squared lengths: θ₀ + λ Σ λₜδₜ with λₜ = ‖δₜ‖² / Σ‖δₛ‖².

    As in the paper the lengths are those of the whole model, so each delta has one weight (of all that is merged by this
    method); `scope: tensor` takes them tensor by tensor. The factor λ is not in the paper, and 1.

    Use it to add fine-tunes without choosing weights: what has changed more counts more.
    """
    del scope
    return ops.weighted_sum(deltas, scale * squares / squares.sum() if squares.sum() > 0 else squares)
