"""Steps that wrap any method: they take what it merged, a difference from the base, and return another."""

from __future__ import annotations

from typing import Annotated

from plait import ops
from plait.methods.measures import summed
from plait.methods.method import post_step
from plait.methods.vocabulary import Array, Deltas, LayerPosition, Parameter, Stack

__all__ = ["clamp", "lines", "rescale_norm", "scale", "sign_mask"]

_ROUNDING = 1e-6  # of a norm: what is left when float32 deltas cancel

Value = Annotated[float, Parameter(float, "The factor.")]
Bound = Annotated[float, Parameter(float, "Largest magnitude that is left.", low=0)]
First = Annotated[float, Parameter(float, "Factor at the first layer, and outside the layers.")]
Rise = Annotated[float | None, Parameter(float, "How much larger it is at the last layer; by default 1 − alpha.")]
Size = Annotated[
    str, Parameter(str, "Which of the norms of the models' deltas it gets.", choices=("mean", "max", "sum"))
]
Voters = Annotated[
    str,
    Parameter(
        str,
        "What elects a sign: the total of the models' deltas, or their signs' frequency.",
        choices=("total", "frequency"),
    ),
]
Squares = Annotated[Array, summed(lambda stack, _, __: stack, squared=True)]


@post_step
def scale(merged: Deltas, *, value: Value) -> Array:
    """Multiply the merged delta by a number."""
    return ops.scale(merged, value)


@post_step
def clamp(merged: Deltas, *, value: Bound) -> Array:
    """Bound every entry of the merged delta to [−value, value]."""
    return ops.clamp(merged, -value, value)


@post_step
def lines(merged: Deltas, *, position: LayerPosition, alpha: First, beta: Rise = None) -> Array:
    """Scale the merged delta layer by layer, the l-th of L by α + β·l/(L−1): LiNeS (Wang et al. 2024, eq. 4).

    <https://arxiv.org/abs/2410.17146>. Tensors outside the layers (embeddings, final norm, head) are scaled by α, as in
    the official code. By default β = 1 − α, as the paper edits a single model: its last layer stays as it is. For the
    sum of N models' deltas it takes α = ‖Σδᵢ‖₁ / (N·‖merged‖₁), which for task_arithmetic is 1/N, and tunes β.
    """
    rise = 1 - alpha if beta is None else beta
    return ops.scale(merged, alpha if position is None else alpha + rise * position)


@post_step
def rescale_norm(merged: Deltas, *, squares: Squares, to: Size = "mean") -> Array:
    """Scale the merged delta of each tensor to the mean, the max or the sum of the models' deltas' L2 norms.

    ‖merged‖ = mean‖δᵢ‖. Where less than 10⁻⁶ of that is left of the merged delta, there is nothing but rounding to be
    scaled, and it stays as it is.
    """
    norms = [float(square) ** 0.5 for square in squares.reshape(-1).tolist()]
    wanted = {"mean": sum(norms[:-1]) / (len(norms) - 1), "max": max(norms[:-1]), "sum": sum(norms[:-1])}[to]
    return ops.scale(merged, wanted / norms[-1]) if norms[-1] > _ROUNDING * wanted else merged


@post_step
def sign_mask(merged: Deltas, *, stack: Stack, vote: Voters = "total") -> Array:
    """Zero the entries of the merged delta that have not the sign which the models' deltas elect.

    The sign is that of Σδᵢ, as TIES elects it (Yadav et al. 2023), or with `vote: frequency` that of most of them. A vote
    of 0 is no election: such entries stay. The deltas vote as they are, without weights and before anything is dropped.
    """
    voices = ops.sign(stack) if vote == "frequency" else stack
    elected = voices[0]
    for voice in voices[1:]:
        elected = elected + voice
    return ops.where(ops.sign(merged) * ops.sign(elected) < 0, 0.0, merged)
