"""SCE: select where the models differ, calculate weights from it, erase minority signs. Wan et al. 2024 (FuseChat)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from plait import ops
from plait.methods.measures import magnitude_threshold, summed
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Int8Mask, Parameter, Scale

__all__ = ["sce"]

Selected = Annotated[
    float,
    Parameter(
        float,
        "Fraction of the entries on which the models differ that is selected: those of largest variance (the paper's τ).",
        low=0,
        high=1,
    ),
]
SelectFor = Annotated[
    str,
    Parameter(
        str,
        "What the selection is for: the merge leaves all else as in the base (mergekit), or only the weights are "
        "calculated from it, and all is merged (the authors' code).",
        choices=("merge", "weights"),
    ),
]


def _spread(deltas: Array) -> Array:
    """k² times the variance over the models: k Σ dᵢ² − (Σ dᵢ)². `[k, *shape] -> [*shape]`.

    Seen from the first model, so that it is 0 exactly where all are equal, and little cancels elsewhere.
    """
    ones = np.ones(len(deltas))
    apart = deltas - deltas[0]
    return abs(len(deltas) * ops.weighted_sum(apart * apart, ones) - ops.weighted_sum(apart, ones) ** 2)


def _counted(deltas: Array, p: Any, _: Any) -> Array:  # noqa: ARG001 - what is measured sees the parameters
    return ops.stacked([ops.sign(_spread(deltas)), deltas[0] * 0 + 1])


def _fraction(p: Mapping[str, Any]) -> float:
    """How much of all entries is selected: a fraction of those that differ, rounded down to a whole number."""
    if not _selects(p):
        return float(p["select_topk"])
    differing, entries = p["differing"].reshape(-1).tolist()
    wanted = math.floor(differing * p["select_topk"])
    return (wanted + 0.5) / entries if wanted else 0.0


def _selects(p: Mapping[str, Any]) -> bool:
    return bool(0 < p["select_topk"] < 1)


def _selected(deltas: Array, p: Mapping[str, Any], _: Any) -> Array:
    return deltas * (_spread(deltas) >= p["threshold"]) if p["select_topk"] < 1 else deltas


Differing = Annotated[Array, summed(_counted, needed=_selects)]
"""`[2]`: on how many entries the models differ, and how many there are."""
SpreadThreshold = Annotated[Array, magnitude_threshold(lambda deltas, *_: _spread(deltas), _fraction, scoped=False)]
Energy = Annotated[Array, summed(_selected, squared=True)]


@method(
    paper="https://arxiv.org/abs/2408.07990",
    locality="measured",
    variants={"mergekit": {}, "official": {"select_for": "weights"}},
)
def sce(
    deltas: Deltas,
    *,
    differing: Differing,
    threshold: SpreadThreshold,
    energy: Energy,
    select_topk: Selected = 1.0,
    select_for: SelectFor = "merge",
    scale: Scale = 1.0,
    int8_mask: Int8Mask = False,
) -> Array:
    """Average what agrees with the sign of Σ δᵢ, weighted by squares: wᵢ = Σ (m δᵢ)² / Σⱼ Σ (m δⱼ)². `[k, *shape] -> [*shape]`.

    Select: m marks the entries of largest variance over the models, `select_topk` of those that vary at all (the authors'
    recipe has 10 %). Calculate: one weight a model and tensor, from the squares of what is selected; equal weights where these
    are all 0. Erase: entries against the elected sign, or 0, take no part in the weighted mean. By default m δᵢ is
    merged, as in mergekit; the authors' code (`variant: official`) uses m for the weights alone. Entries whose
    variance equals the threshold are all selected.

    Use it for several chat models trained from one base, as FuseChat was made, where no weights are to be chosen by
    hand.
    """
    del differing, int8_mask
    selected = _selected(deltas, {"threshold": threshold, "select_topk": select_topk}, None)
    kept = selected if select_for == "merge" else deltas
    weight = energy / energy.sum() if energy.sum() > 0 else energy + 1
    return scale * ops.agreeing_mean(kept, ops.elect(kept, np.ones(len(kept))), weight)
