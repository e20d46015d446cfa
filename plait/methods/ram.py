"""Reinforced Agent Merging: what one model alone changed is kept, what several changed is averaged. Yuan et al. 2026."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from plait import ops
from plait.methods.measures import extremes, summed
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Parameter, Scale

__all__ = ["ram", "ramplus", "ramplus_tl"]

_PAPER = "https://arxiv.org/abs/2601.13572"

Epsilon = Annotated[float, Parameter(float, "An entry counts as changed when its delta is larger than this.", low=0)]
Relative = Annotated[
    bool,
    Parameter(
        bool, "Take epsilon as a fraction of each model's largest delta (in the tensor, or in what `scope` says)."
    ),
]
Bonus = Annotated[float, Parameter(float, "How fast the factor on a model's own changes grows with its ratio.")]
Most = Annotated[
    float, Parameter(float, "Ratio of shared to own changes beyond which the factor grows no more.", low=0)
]
CountedOver = Annotated[
    str,
    Parameter(
        str, "Over what changes are counted: the whole model (the paper's) or each tensor.", choices=("model", "tensor")
    ),
]


def _changed(deltas: Array, p: Mapping[str, Any]) -> tuple[Array, Array]:
    """Tell which models changed an entry, 1 or 0, `[k, *shape]`; and how many did, `[*shape]`."""
    least = p["epsilon"] * p["extremes"][1] if p["relative"] else p["epsilon"]
    changed = ops.where(abs(deltas) > least, 1, 0)
    return changed, ops.weighted_sum(changed, np.ones(len(changed)))


def _averaged(deltas: Array, p: Mapping[str, Any]) -> Array:
    """Average each entry over the models that changed it."""
    changed, sharing = _changed(deltas, p)
    return ops.weighted_sum(deltas * changed, np.ones(len(deltas))) / ops.maximum(sharing, 1)


def _rewarded(deltas: Array, p: Mapping[str, Any], counts: Array) -> Array:
    """The same, with what one model alone changed times that model's factor λ."""
    own, all_of_it = counts[: len(deltas)], counts[len(deltas) :]
    ratio = (all_of_it - own) / ops.maximum(own, 1)
    changed, sharing = _changed(deltas, p)
    kept = deltas * changed
    alone = ops.weighted_sum(kept, 1 + p["r"] * ops.minimum(ratio, p["alpha"]))
    averaged = ops.weighted_sum(kept, np.ones(len(kept))) / ops.maximum(sharing, 1)
    return ops.where(sharing == 1, alone, averaged)


def _counted(deltas: Array, p: Mapping[str, Any], _: Any) -> Array:
    changed, sharing = _changed(deltas, p)
    return ops.stacked([*ops.where(sharing == 1, changed, 0), *changed])


Extremes = Annotated[
    Array, extremes(lambda deltas, *_: abs(deltas), scoped=True, needed=lambda p: p["relative"], reads=("relative",))
]
"""`[2, k]`: the least and the largest magnitude of each delta."""
Counts = Annotated[Array, summed(_counted, scoped=True, reads=("epsilon", "relative", "extremes"))]
"""`[2k]`: how many entries each model alone changed, then how many it changed at all."""


@method(paper=_PAPER, locality="element")
def ram(deltas: Deltas, *, epsilon: Epsilon = 1e-5, relative: Relative = False, scale: Scale = 1.0) -> Array:
    """Average each entry over the models that changed it: θ₀ + Σ aᵢδᵢ / Σ aᵢ, aᵢ = [|δᵢ| > ε]. `[k, *shape] -> [*shape]`.

    What one model alone changed is kept whole. ε = 1e-5 is the authors' and mergekit's; deltas of models trained with
    a small learning rate may all lie below it. `relative: true` measures ε in each model's largest delta of the
    tensor, and `epsilon: 0` counts every difference; only these two merge models scaled as a whole alike.

    Use it for models trained by reinforcement learning, which change few entries, and mostly different ones.
    """
    return scale * _averaged(deltas, {"epsilon": epsilon, "relative": relative})


@ram.when(relative=True, locality="measured")
def relative_ram(
    deltas: Deltas, *, extremes: Extremes, epsilon: Epsilon, relative: Relative = True, scale: Scale = 1.0
) -> Array:
    """Count changes relative to each model's largest. `[k, *shape] -> [*shape]`."""
    return scale * _averaged(deltas, {"epsilon": epsilon, "relative": relative, "extremes": extremes})


@method(paper=_PAPER, locality="measured")
def ramplus_tl(
    deltas: Deltas,
    *,
    extremes: Extremes,
    counts: Counts,
    r: Bonus = 0.1,
    alpha: Most = 0.2,
    epsilon: Epsilon = 1e-5,
    relative: Relative = False,
    scale: Scale = 1.0,
) -> Array:
    """Merge as `ram`, and multiply what model i alone changed by λᵢ = 1 + r min(ρᵢ, α). `[k, *shape] -> [*shape]`.

    ρᵢ is how many of the model's changes are shared over how many are its own, counted in the tensor: mergekit's form
    of RAM+, with its defaults. `ramplus` counts over the whole model.

    Use it for recipes written for mergekit; else `ramplus` is the paper's.
    """
    given = {"r": r, "alpha": alpha, "epsilon": epsilon, "relative": relative, "extremes": extremes}
    return scale * _rewarded(deltas, given, counts)


@method(paper=_PAPER, locality="measured")
def ramplus(
    deltas: Deltas,
    *,
    extremes: Extremes,
    counts: Counts,
    r: Bonus = 0.1,
    alpha: Most = 0.2,
    epsilon: Epsilon = 1e-5,
    relative: Relative = False,
    scale: Scale = 1.0,
    scope: CountedOver = "model",
) -> Array:
    """Merge as `ram`, and multiply what model i alone changed by λᵢ = 1 + r min(ρᵢ, α). `[k, *shape] -> [*shape]`.

    ρᵢ is how many of the model's changes are shared over how many are its own, counted over the whole model, as in the
    authors' code; that has α = 1, with r = 0.05 by default and 0.2 in its instructions. r and α are mergekit's here.

    Use it as `ram`, where models share many of their changes and lose by the averaging.
    """
    del scope
    given = {"r": r, "alpha": alpha, "epsilon": epsilon, "relative": relative, "extremes": extremes}
    return scale * _rewarded(deltas, given, counts)
