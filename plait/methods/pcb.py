"""PCB-Merging: balance the competition between parameters, within a model and between models. Du et al. 2024."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from plait import ops
from plait.methods.measures import extremes, magnitude_threshold, signed_quantile
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Parameter, Scale, Scope, Weight

__all__ = ["pcb"]

_LEAST = 1e-300  # a fraction that is less than one entry, of which the largest is taken

Ratio = Annotated[
    float, Parameter(float, "Fraction of each model's entries that take part, those of highest score.", low=0, high=1)
]
Clip = Annotated[float, Parameter(float, "Fraction of the magnitudes that is cut off at either end.", low=0, high=0.5)]
Inter = Annotated[
    str,
    Parameter(
        str,
        "How models compete: nlp and vision as in the official code for language and for vision models, pairwise as in "
        "its search for weights.",
        choices=("nlp", "vision", "pairwise"),
    ),
]


def _signed(deltas: Array, p: Mapping[str, Any]) -> tuple[Array, Array]:
    """The deltas with magnitudes cut to [low, high], and with these mapped to [0, 1]."""
    size = ops.minimum(ops.maximum(abs(deltas), p["low"]), p["high"])
    low, high = ops.minimum(size, p["low"]), ops.maximum(size, p["high"])  # in the stack's own precision
    span = high - low
    sign = ops.sign(deltas)
    return sign * size, sign * ((size - low) / ops.where(span > 0, span, 1))


def _total(stack: Array) -> Array:
    total = stack[0]
    for x in stack[1:]:
        total = total + x
    return total


def _score(deltas: Array, p: Mapping[str, Any]) -> Array:
    """How each entry fares: within its model (greater is better), times with the others (same sign is better)."""
    unit = _signed(deltas, p)[1]
    within = ops.exp(len(deltas) * (unit * unit - 1))  # e^N times less than the paper's, to which s is indifferent
    if p["inter"] == "nlp":
        return within * ops.tanh(deltas * _total(deltas))
    if p["inter"] == "vision":
        return within * ops.tanh(deltas * _total(unit))
    return within * ops.stacked([_total(ops.tanh(unit * one)) for one in unit])


Low = Annotated[Array, magnitude_threshold(keep=lambda p: 1 - p["clip"])]
High = Annotated[Array, magnitude_threshold(keep=lambda p: max(p["clip"], _LEAST))]
Floor = Annotated[
    Array, signed_quantile(lambda deltas, p, _: _score(deltas, p), lambda p: 1 - p["ratio"], reads=("inter", "ratio"))
]
Best = Annotated[Array, extremes(lambda deltas, p, _: _score(deltas, p), scoped=True, reads=("inter",))]


@method(paper="https://arxiv.org/abs/2410.02396", locality="measured")
def pcb(
    deltas: Deltas,
    *,
    low: Low,
    high: High,
    floor: Floor,
    best: Best,
    weight: Weight = 1.0,
    ratio: Ratio = 0.1,
    clip: Clip = 0.01,
    inter: Inter = "nlp",
    scale: Scale = 1.2,
    scope: Scope = "model",
) -> Array:
    """Average the deltas by their scores: θ₀ + λ Σ wᵢsᵢδᵢ / Σ sᵢ, entry by entry. `[k, *shape] -> [*shape]`.

    Magnitudes are cut to their `clip` and 1 − `clip` quantiles, which gives δᵢ, and mapped to [0, 1], which (with
    signs) gives uᵢ. The score is exp(N uᵢ²) times tanh(δᵢ Σⱼδⱼ) (`inter: nlp`; of the uncut deltas), tanh(δᵢ Σⱼuⱼ)
    (`vision`) or Σⱼ tanh(uᵢuⱼ) (`pairwise`); what is below its 1 − `ratio` quantile becomes that, and the rest is
    mapped to sᵢ in [0, 1]. Quantiles are of the whole model, or with `scope: tensor` of each tensor.

    Formulas, ratio and λ are those of the official code; the paper writes a softmax where that has exp and tanh. Only
    `pairwise` is indifferent to the scale of the deltas; with the others tanh is nearly its argument where deltas are
    small, and ±1 where they are large. Where no model takes part the base is kept.
    """
    del ratio, clip, scope
    cut, _ = _signed(deltas, {"low": low, "high": high})
    score = _score(deltas, {"low": low, "high": high, "inter": inter})
    raised = ops.maximum(score, floor)
    least, most = ops.minimum(raised, floor), ops.maximum(raised, best[1])
    span = most - least
    share = ops.where(span > 0, (raised - least) / ops.where(span > 0, span, 1), ops.where(score >= least, 1, 0))
    total = _total(share)
    merged = _total(ops.scale(cut, weight) * share)
    return scale * ops.where(total > 0, merged / ops.where(total > 0, total, 1), 0)
