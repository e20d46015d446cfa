"""Task arithmetic in the trust region: leave out the entries at which models would disturb each other. Sun et al. 2025."""

from __future__ import annotations

from typing import Annotated

from plait import ops
from plait.methods.measures import magnitude_threshold
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Parameter, Scale, Scope, Weight

__all__ = ["tatr"]

Quantile = Annotated[
    float, Parameter(float, "Fraction of the entries, those of least conflict, that is merged.", low=0, high=1)
]


def _conflict(deltas: Array) -> Array:
    """Ω = Σ_{i≠j} |δᵢ||δⱼ|, by halves: each model with those before it. `[k, *shape] -> [*shape]`."""
    before = abs(deltas[0])
    conflict = 0 * before
    for delta in deltas[1:]:
        size = abs(delta)
        conflict = conflict + size * before
        before = before + size
    return conflict


Trusted = Annotated[
    Array,
    magnitude_threshold(lambda deltas, *_: _conflict(deltas), lambda p: 1 - p["quantile"], reads=("quantile",)),
]


@method(paper="https://arxiv.org/abs/2501.15065", locality="measured", min_models=2)
def tatr(
    deltas: Deltas,
    *,
    threshold: Trusted,
    weight: Weight = 1.0,
    quantile: Quantile = 0.99,
    scale: Scale = 0.3,
    scope: Scope = "model",
) -> Array:
    """Add the deltas where models conflict least: θ₀ + λ Σ wᵢ [Ω < ε] δᵢ, Ω = Σ_{i≠j} |gᵢ||δⱼ|. `[k, *shape] -> [*shape]`.

    The zero-shot form, which needs no data: |δᵢ| stands for the gradient gᵢ of task i's loss. ε is the
    `quantile` of Ω over the whole model, or, with `scope: tensor`, over each tensor. The paper has no weights. Where
    only one model changed an entry there is no conflict, and it is kept, even if ε is 0, where fusion_bench drops it.
    (Its ε may be the next entry down: where it rounds a rank down, this rounds it up.)

    Use it in place of task_arithmetic when models of several tasks get into each other's way at few entries.
    """
    del quantile, scope
    conflict = _conflict(deltas)
    trusted = (conflict < threshold[0]) | (conflict == 0)
    return ops.where(trusted, ops.weighted_sum(deltas, scale * weight), 0)
