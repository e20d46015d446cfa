"""Multi-SLERP: interpolation of any number of models on a sphere by their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from plait.methods.method import method
from plait.methods.vocabulary import Coefficients, Parameter, Weight, WeightsGram

__all__ = ["multislerp"]

Normalised = Annotated[bool, Parameter(bool, "Divide the weights by their sum first.")]
Epsilon = Annotated[
    float, Parameter(float, "Added to each length that is divided by, as a part of the mean length.", low=0)
]


def _check(values: Mapping[str, Any]) -> str:
    cancel = values["normalize_weights"] and len(values["weight"]) > 1 and sum(values["weight"]) == 0
    return "the weights add up to 0, so they cannot be normalised; change one" if cancel else ""


@method(
    paper="https://goddard.blog/posts/multislerp-wow-what-a-cool-idea", locality="span", base="origin", check=_check
)
def multislerp(
    gram: WeightsGram, *, weight: Weight, normalize_weights: Normalised = True, eps: Epsilon = 1e-8
) -> Coefficients:
    """Average directions and lengths apart: Σ wᵢ‖θᵢ‖ · μ with μ the direction of Σ wᵢ θᵢ/‖θᵢ‖; of deltas, with a base.

    The source goes on from μ along Σ wᵢ(uᵢ − ⟨uᵢ, μ⟩μ), which is 0 as μ lies along Σ wᵢuᵢ: so this is all of it (for a
    mean by angles see karcher). Where the directions cancel the weighted sum is taken (mergekit: of two models only, of
    more it stops). One model comes out as it is. `eps` is relative to the models' mean length, in mergekit absolute.

    Use it to average models of unequal weight without losing length, by a formula where `karcher` iterates.
    """
    norms = np.sqrt(np.diag(gram))
    if len(norms) == 1 or not norms.any():
        return np.ones(len(norms))
    if normalize_weights:
        weight = weight / weight.sum()
    mean = weight / (norms + eps * norms.mean() + (norms == 0))
    length = float(np.sqrt(max(0.0, mean @ gram @ mean)))
    if length <= max(eps, np.sqrt(np.finfo(np.float64).eps)):
        return np.asarray(weight)
    return np.asarray(weight @ norms / length * mean)
