"""Model Breadcrumbs: leave out the outliers and the smallest entries. Davari and Belilovsky 2023, section 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from plait import ops
from plait.methods.dare import add_up
from plait.methods.measures import MagnitudeThreshold, kept_norm
from plait.methods.method import method
from plait.methods.ties import agree, rescaled
from plait.methods.vocabulary import (
    Array,
    Deltas,
    Density,
    Int8Mask,
    Measured,
    Merge,
    Normalize,
    Parameter,
    Rescale,
    Scale,
    Vote,
    Weight,
)

__all__ = ["breadcrumbs", "breadcrumbs_ties"]


def _end(parameters: Mapping[str, Any], size: int, *, largest: bool) -> MagnitudeThreshold:
    """Measure the largest, or the smallest, magnitude that is kept of each whole tensor.

    ⌊γ·size⌋ entries are outliers, fewer where otherwise less than ⌊density·size⌋ were left. A density of 1 keeps all.
    """
    density, gamma = (np.asarray(parameters[key], np.float64).reshape(-1) for key in ("density", "gamma"))
    wanted = np.floor(density * size)
    outliers = np.minimum(np.floor(gamma * size), size - wanted)
    rank = np.where(density < 1, outliers + (1 if largest else wanted), 1 if largest else size)
    share = np.clip(rank / max(1, size), 1e-9, 1 - 1e-9)
    if largest:  # infinity: nothing is too large
        share = np.where((rank == 1) | (wanted == 0), 0.0, share)
    else:  # 0: nothing is too small; infinity: everything is
        share = np.where(wanted == 0, 0.0, np.where(rank >= size, 1.0, share))
    if parameters["per"] == "row":
        share = share * 0
    measure = MagnitudeThreshold(share, size)
    measure.rank = [int(r) for r in rank]
    return measure


def _selected(deltas: Array, p: Mapping[str, Any]) -> Array:
    if p["per"] == "row":
        return _of_rows(deltas, p["density"], p["gamma"])
    kept = ops.trim(deltas, p["lowest"])
    return kept if (p["highest"] == np.inf).all() else ops.where(abs(kept) <= p["highest"], kept, 0)


def _of_rows(deltas: Array, density: Array, gamma: Array) -> Array:
    """Remove the ⌊γn⌋ largest of each row of n, and of the rest keep the ⌊density·n⌋ largest."""
    columns = deltas.shape[-1]
    rank, end = ops.ranks(deltas), columns - gamma * columns // 1
    return ops.where((rank < end) & (rank >= end - density * columns // 1), deltas, 0)


Lowest = Annotated[Array, Measured(lambda p, _, size: _end(p, size, largest=False), uses=(), counts=1)]
Highest = Annotated[Array, Measured(lambda p, _, size: _end(p, size, largest=True), uses=(), counts=1)]
CrumbsNorm = Annotated[Array, kept_norm(lambda deltas, p, _: _selected(deltas, p))]
Gamma = Annotated[
    Array, Parameter(float, "Fraction of outliers: the largest, left out.", per_model=True, low=0, high=1)
]
Per = Annotated[
    str, Parameter(str, "Where magnitudes are ranked: each tensor, or each of its rows.", choices=("tensor", "row"))
]
_PAPER = {"weight": 1.0, "density": 0.15, "gamma": 0.006, "per": "row", "scale": 0.2}


@method(paper="https://arxiv.org/abs/2312.06795", locality="measured", variants={"mergekit": {}, "paper": _PAPER})
def breadcrumbs(
    deltas: Deltas,
    *,
    lowest: Lowest,
    highest: Highest,
    kept_norm: CrumbsNorm,
    weight: Weight,
    density: Density = 1.0,
    gamma: Gamma = 0.01,
    scale: Scale = 1.0,
    normalize: Normalize = False,
    rescale: Rescale = "none",
    per: Per = "tensor",
    int8_mask: Int8Mask = False,
) -> Array:
    """Leave out each delta's largest and smallest entries, add up the rest: θ₀ + λ Σ wᵢδ̂ᵢ. `[k, *shape] -> [*shape]`.

    By default as mergekit: of a whole tensor ⌊γn⌋ outliers go, fewer where density asks for it (so none at density 1),
    and ⌊density·n⌋ stay, with all that equal the least or the largest of them. `per: row` is the paper's code: in each
    row the ⌊γn⌋ largest always go, and ⌊density·n⌋ of the rest stay; `variant: paper` takes its numbers, too. With
    `gamma: 0` this is magnitude pruning, PEFT's `magnitude_prune`.

    Use it for many fine-tunes of one base, where a few extreme entries would outweigh all others in the sum.
    """
    del int8_mask
    numbers = {"density": density, "gamma": gamma, "lowest": lowest, "highest": highest, "per": per}
    kept = rescaled(_selected(deltas, numbers), kept_norm, density, rescale)
    return add_up(kept, weight, scale=scale, normalize=normalize)


@method(paper="https://arxiv.org/abs/2312.06795", locality="measured")
def breadcrumbs_ties(
    deltas: Deltas,
    *,
    lowest: Lowest,
    highest: Highest,
    kept_norm: CrumbsNorm,
    weight: Weight,
    density: Density = 1.0,
    gamma: Gamma = 0.01,
    scale: Scale = 1.0,
    merge: Merge = "sum",
    vote: Vote = "weighted",
    rescale: Rescale = "none",
    per: Per = "tensor",
    int8_mask: Int8Mask = False,
) -> Array:
    """Leave out entries as Breadcrumbs does, then elect a sign per entry and add up those that agree, as TIES.

    `[k, *shape] -> [*shape]`. mergekit's combination of the two; the paper has no vote.

    Use it as `breadcrumbs`, for models whose changes often differ in sign.
    """
    del int8_mask
    numbers = {"density": density, "gamma": gamma, "lowest": lowest, "highest": highest, "per": per}
    kept = rescaled(_selected(deltas, numbers), kept_norm, density, rescale)
    return scale * agree(kept, weight, merge=merge, vote=vote)


breadcrumbs.when(per="row", locality="row")(breadcrumbs.run)
breadcrumbs_ties.when(per="row", locality="row")(breadcrumbs_ties.run)
