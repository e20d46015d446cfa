"""Steps that wrap any method: they take what it merged (a delta, or weights) and return another."""

from __future__ import annotations

from typing import Annotated

from plait import ops
from plait.methods.method import post_step
from plait.methods.vocabulary import Array, Deltas, Parameter

__all__ = ["clamp", "scale"]

Value = Annotated[float, Parameter(float, "The factor; a gradient scales layer by layer (LiNeS).")]
Bound = Annotated[float, Parameter(float, "Largest magnitude that is left.", low=0)]


@post_step
def scale(merged: Deltas, *, value: Value) -> Array:
    """Multiply the merged delta. With a gradient rising over the layers this is LiNeS (Wang et al. 2024, eq. 4)."""
    return ops.scale(merged, value)


@post_step
def clamp(merged: Deltas, *, value: Bound) -> Array:
    """Bound every entry of the merged delta to [−value, value]."""
    return ops.clamp(merged, -value, value)
