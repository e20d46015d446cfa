"""The geometric median. Weiszfeld 1937, with the step of Vardi and Zhang 2000 where an iterate meets an input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from plait.methods.method import method
from plait.methods.vocabulary import Array, Coefficients, Parameter, WeightsGram

__all__ = ["geometric_median"]

Share = Annotated[Array, Parameter(float, "How much of this model; only the ratios count.", per_model=True, low=0)]
Iterations = Annotated[int, Parameter(int, "Most steps to take.", low=0)]
Tolerance = Annotated[
    float, Parameter(float, "Stop when a step is shorter than this part of the mean distance to the models.", low=0)
]
Over = Annotated[
    str, Parameter(str, "Over what distances are taken: each tensor, or the whole model.", choices=("tensor", "model"))
]


def _check(values: Mapping[str, Any]) -> str:
    return "" if any(values["weight"]) else "all weights are 0; give at least one model a weight"


@method(paper="https://doi.org/10.1073/pnas.97.4.1423", locality="span", check=_check)
def geometric_median(
    gram: WeightsGram,
    *,
    weight: Share = 1.0,
    max_iter: Iterations = 1000,
    tol: Tolerance = 1e-9,
    scope: Over = "tensor",
) -> Coefficients:
    """Find the point with the least sum of distances to the models, argmin Σ wᵢ‖x − θᵢ‖, per tensor.

    Every iterate is a convex combination of the models, x ← Σ (wᵢ/dᵢ)θᵢ / Σ (wᵢ/dᵢ), so its distances dᵢ follow from the
    Gram matrix. A model that is the median itself is returned as it is. Distances below 1e-7 of the models' lengths count
    as none. Of two models of equal weight, where every point between is a median, it is the mean.

    Use it for several models of one kind of which some may be bad: one that is far off has little pull.
    """
    del scope
    from_first = gram - gram[0] - gram[:, :1] + gram[0, 0]  # of θᵢ − θ₁: what rounding left of it has one geometry
    points = _Points(from_first, weight, 1e-14 * np.diag(gram).max())
    at = next((i for i in range(len(gram)) if points.is_median(i)), None)
    if at is not None:
        return np.eye(len(gram))[at]
    x = weight / weight.sum()
    for _ in range(int(max_iter)):
        distance = points.distances(x)
        step = points.step(x, distance)
        x = x + step
        if points.norm(step) <= tol * (weight @ distance) / weight.sum():
            break
    return x


@dataclass(frozen=True)
class _Points:
    """The models as points. A point in their span is its coefficients, which add up to 1; a shift's add up to 0."""

    gram: Array
    weight: Array
    floor: float
    """Squared distances up to this are 0."""

    def norm(self, shift: Array) -> float:
        """The length of a shift."""
        return float(np.sqrt(max(0.0, shift @ self.gram @ shift)))

    def distances(self, x: Array) -> Array:
        """From x to each model, `[k]`."""
        offset = x - np.eye(len(x))
        squares = np.einsum("ij,jl,il->i", offset, self.gram, offset)
        return np.sqrt(np.where(squares > self.floor, squares, 0.0))

    def is_median(self, i: int) -> bool:
        """Whether model i is the one median: the others pull there with less than its weight and its copies'."""
        x = np.eye(len(self.weight))[i]
        distance = self.distances(x)
        here = float(self.weight[distance == 0].sum())
        return self.norm(self.pull(x, distance)) < (1 - 1e-9) * here

    def pull(self, x: Array, distance: Array) -> Array:
        """Σ wᵢ(θᵢ − x)/dᵢ over the models that are elsewhere."""
        inverse = self.inverse(distance)
        return inverse - inverse.sum() * x

    def inverse(self, distance: Array) -> Array:
        """wᵢ/dᵢ; 0 for a model at no distance."""
        return np.divide(self.weight, distance, out=np.zeros(len(distance)), where=distance > 0)

    def step(self, x: Array, distance: Array) -> Array:
        """Where x goes next, less x: Weiszfeld's step, shortened at a model by that model's own weight."""
        inverse = self.inverse(distance)
        if not inverse.any():
            return np.zeros(len(x))
        here = float(self.weight[distance == 0].sum())
        pull = self.norm(self.pull(x, distance)) if here else 1.0
        kept = min(1.0, here / pull) if pull > 0 else 1.0
        return (1 - kept) * (inverse / inverse.sum() - x)
