"""Spherical linear interpolation of two tensors. Shoemake 1985, section 3.3."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np

from plait.methods.method import method
from plait.methods.vocabulary import Coefficients, Parameter, WeightsGram

__all__ = ["slerp"]

_NEARLY_COLLINEAR = 0.9995
_COLLINEAR = 1 - 2.0**-25  # cosines beyond this are 1 to float32
Position = Annotated[float, Parameter(float, "Where between the two: 0 is the base, 1 the other model.")]
Length = Annotated[
    str,
    Parameter(
        str,
        "Whether the two keep their own lengths (mergekit's), or the direction is interpolated and given the length "
        "interpolated between theirs (sd-mecha's).",
        choices=("own", "interpolated"),
    ),
]


@method(paper="https://doi.org/10.1145/325165.325242", locality="span", base="first", min_models=2, max_models=2)
def slerp(gram: WeightsGram, *, t: Position, length: Length = "own") -> Coefficients:
    """Interpolate along the arc from the base to the model: (sin((1−t)Ω)θ₀ + sin(tΩ)θ₁) / sin Ω, per tensor.

    Ω is the angle between the two tensors, each taken as one vector; the tensors themselves are not normalised.
    When |cos Ω| > 0.9995, or one of them is zero, the straight line is taken. With `length: interpolated` the two are
    taken at length 1, and the result at length (1−t)‖θ₀‖ + t‖θ₁‖; the line is straight where they are collinear.

    Use it for two models, to go any part of the way from one to the other without losing length.
    """
    norms = np.sqrt(np.diag(gram))
    cosine = float(gram[0, 1] / (norms[0] * norms[1])) if norms.all() else 1.0
    if abs(cosine) > (_NEARLY_COLLINEAR if length == "own" else _COLLINEAR):
        return np.array([1 - t, t])
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    arc = np.array([math.sin((1 - t) * angle), math.sin(t * angle)]) / math.sin(angle)
    return arc if length == "own" else arc * ((1 - t) * norms[0] + t * norms[1]) / norms
