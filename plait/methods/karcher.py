"""The Karcher (Riemannian) mean on the sphere. Grove and Karcher 1973; for merging, arXiv 2603.04972."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from plait.methods.method import method
from plait.methods.vocabulary import Array, Coefficients, Parameter, WeightsGram

__all__ = ["karcher"]

Share = Annotated[Array, Parameter(float, "How much of this model; only the ratios count.", per_model=True, low=0)]
Iterations = Annotated[int, Parameter(int, "Most steps to take.", low=0)]
Tolerance = Annotated[float, Parameter(float, "Stop when the step, in radians, is shorter.", low=0)]


def _check(values: Mapping[str, Any]) -> str:
    return "" if any(values["weight"]) else "all weights are 0; give at least one model a weight"


@method(paper="https://arxiv.org/abs/2603.04972", locality="span", check=_check)
def karcher(
    gram: WeightsGram, *, weight: Share = 1.0, max_iter: Iterations = 10, tol: Tolerance = 1e-5
) -> Coefficients:
    """Find the point on the sphere with the least Σ αᵢ angle(θᵢ)², αᵢ = wᵢ/Σw, at the models' mean length Σ αᵢ‖θᵢ‖.

    Every iterate is a combination of the inputs, so the whole iteration runs on their Gram matrix: the mean μ is held
    as its coefficients over the unit inputs uᵢ, μ ← cos‖v‖ μ + sin‖v‖ v/‖v‖ with v = Σ αᵢ log_μ(uᵢ). Zero tensors take
    no part in the direction but count in the mean length. mergekit has no weights: there αᵢ = 1/k.

    Use it to average three models or more without losing length, as `slerp` does for two.
    """
    share = weight / weight.sum()
    norms = np.sqrt(np.diag(gram))
    there = (norms > 0) & (share > 0)
    if not there.any():
        return np.zeros(len(norms))
    alpha = share[there] / share[there].sum()
    cosines = gram[np.ix_(there, there)] / np.outer(norms[there], norms[there])
    mean = _unit(alpha, cosines)
    for _ in range(int(max_iter)):
        step = _tangent(mean, cosines, alpha, tol)
        length = _norm(step, cosines)
        if length < tol or length == 0:
            break
        mean = _unit(np.cos(length) * mean + np.sin(length) * step / length, cosines)
    coefficients = np.zeros(len(norms))
    coefficients[there] = (share @ norms) * mean / norms[there]
    return coefficients


def _norm(c: Array, cosines: Array) -> float:
    return float(np.sqrt(max(0.0, c @ cosines @ c)))


def _unit(c: Array, cosines: Array) -> Array:
    """Scale to the sphere; inputs that cancel start from the first of them."""
    length = _norm(c, cosines)
    return c / length if length > np.sqrt(np.finfo(np.float64).eps) else np.eye(len(c))[0]


def _tangent(mean: Array, cosines: Array, alpha: Array, tol: float) -> Array:
    """Return Σ αᵢ log_μ(uᵢ) as coefficients: log_μ(u) = θ / sin θ · (u − cos θ · μ)."""
    step = np.zeros(len(mean))
    for i, cosine in enumerate(np.clip(cosines @ mean, -1, 1)):
        angle = np.arccos(cosine)
        if angle >= tol and 0 < angle < np.pi:
            size = alpha[i] * angle / np.sin(angle)
            step[i] += size
            step -= size * cosine * mean
    return step
