"""TALL masks and Consensus Merging: where a model's own change survives in the sum of all. Wang et al. 2024."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from plait import ops
from plait.methods.emr import Task, task_of
from plait.methods.measures import Threshold, magnitude_threshold
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Density, Parameter, Scale, Scope, Weight

__all__ = ["consensus_ta", "consensus_ties", "tall_masks"]

_PAPER = "https://arxiv.org/abs/2405.07813"

MaskLambda = Annotated[
    Array,
    Parameter(
        float,
        "How much nearer to the model than to the base the merge must come for the model's mask (the paper's λ_t); "
        "more keeps less.",
        per_model=True,
        low=0,
    ),
]
Agreement = Annotated[
    int, Parameter(int, "In how many models' masks an entry must be to stay (the paper's k); 0 keeps all.", low=0)
]
MergedBy = Annotated[
    str,
    Parameter(
        str, "How the deltas are merged: added (sum), or trimmed, elected and added (ties).", choices=("sum", "ties")
    ),
]


@method(paper=_PAPER, locality="element")
def consensus_ta(
    deltas: Deltas,
    *,
    weight: Weight = 1.0,
    mask_lambda: MaskLambda = 0.4,
    agreement: Agreement = 2,
    scale: Scale = 1.0,
) -> Array:
    """Add the deltas, keep what at least k models need: θ₀ + α [Σ_t m_t ≥ k] τ, τ = Σ wᵢδᵢ. `[k, *shape] -> [*shape]`.

    Model t needs an entry when |δ_t| ≥ λ_t |τ − δ_t|: its TALL mask. With k = 2 what one model alone needs ("selfish")
    goes as well as what none does ("catastrophic"). The paper has no weights; it tunes α (`scale`) and, from 0.2 to
    0.6 for each model, λ_t (`mask_lambda`) on validation data.

    Use it instead of task arithmetic where many models are added.
    """
    return scale * _agreed(deltas, ops.weighted_sum(deltas, weight), mask_lambda, agreement)


@method(paper=_PAPER, locality="measured")
def consensus_ties(
    deltas: Deltas,
    *,
    threshold: Threshold,
    weight: Weight = 1.0,
    density: Density = 0.2,
    mask_lambda: MaskLambda = 0.4,
    agreement: Agreement = 2,
    scale: Scale = 1.0,
    scope: Scope = "model",
) -> Array:
    """Merge as TIES, then keep what at least k models need: θ₀ + α [Σ_t m_t ≥ k] τ. `[k, *shape] -> [*shape]`.

    τ adds up the entries that have the elected sign, of the largest fifth of each delta over the whole model. The
    masks, |δ_t| ≥ λ_t |τ − δ_t|, are of the whole deltas. See `consensus_ta`.

    Use it instead of TIES where many models are merged.
    """
    del density, scope
    return scale * _agreed(deltas, _ties(deltas, threshold, weight), mask_lambda, agreement)


def _fraction(p: Mapping[str, Any]) -> Any:
    return p["density"] if p["merged_by"] == "ties" else 1.0


@method(paper=_PAPER, locality="measured")
def tall_masks(
    deltas: Deltas,
    *,
    threshold: Annotated[Array, magnitude_threshold(keep=_fraction)],
    task: Task = 0,
    merged_by: MergedBy = "sum",
    weight: Weight = 1.0,
    density: Density = 0.2,
    mask_lambda: MaskLambda = 0.4,
    scale: Scale = 1.0,
    scope: Scope = "model",
) -> Array:
    """Rebuild model t from the merge of all: θ₀ + m_t ⊙ τ, m_t = [|δ_t| ≥ λ_t |τ − δ_t|]. `[k, *shape] -> [*shape]`.

    τ = Σ wᵢδᵢ, or with `merged_by: ties` the τ of `consensus_ties`. `task: t` names the model; `task: 0` gives θ₀ + τ,
    which all share. The paper tunes λ_t (`mask_lambda`) from 0.2 to 0.6; it has no weights and no `scale` here.

    Use it to see how much of a model the sum of many still has, or to store many as one sum and a mask each.
    """
    del density, scope
    merged = _ties(deltas, threshold, weight) if merged_by == "ties" else ops.weighted_sum(deltas, weight)
    if task == 0:
        return scale * merged
    return scale * (merged * _needed(task_of(deltas, task)[None], merged, mask_lambda[task - 1 : task])[0])


def _ties(deltas: Array, threshold: Array, weight: Array) -> Array:
    kept = ops.trim(deltas, threshold)
    return ops.agreeing_sum(kept, ops.elect(kept, weight), weight)


def _needed(deltas: Array, merged: Array, mask_lambda: Array) -> Array:
    """The models' TALL masks, as bool."""
    return abs(deltas) >= ops.scale(abs(deltas - merged), mask_lambda)


def _agreed(deltas: Array, merged: Array, mask_lambda: Array, agreement: int) -> Array:
    masks = ops.where(_needed(deltas, merged, mask_lambda), deltas * 0 + 1, 0)
    return merged * (ops.weighted_sum(masks, np.ones(len(masks))) >= agreement)
