"""PCB-Merging: balance the competition between parameters, within a model and between models. Du et al. 2024."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def _floats(numbers: Array) -> list[float]:
    values: list[float] = numbers.reshape(-1).tolist()
    return values


def _mapped(x: Array, low: float, high: float) -> Array:
    """Cut to [low, high], and map that to [0, 1]: clamp and normalise, as the official code calls it."""
    if low < high:
        above = ops.clamp(x, low, high) - low
        return above / (0 * above + (high - low))  # (by an array: devices divide by a number in ways of their own)
    return ops.where(x >= high, 0 * x + 1, 0)


def _total(stack: Iterable[Array]) -> Array:
    first, *others = stack
    for other in others:
        first = first + other
    return first


def _score(deltas: Array, p: Mapping[str, Any]) -> Array:
    """How each entry fares: within its model (greater is better), times with the others (same sign is better)."""
    ends = zip(deltas, _floats(p["low"]), _floats(p["high"]), strict=True)
    units = [_mapped(abs(delta), low, high) for delta, low, high in ends]
    # (e^N times less than the paper's, which the mapping to [0, 1] undoes)
    within = [ops.exp((unit * unit - 1) * len(units)) for unit in units]
    if p["inter"] == "nlp":
        total = _total(deltas)
        between = [ops.tanh(delta * total) for delta in deltas]
    else:
        signed = [ops.sign(delta) * unit for delta, unit in zip(deltas, units, strict=True)]
        if p["inter"] == "vision":
            total = _total(signed)
            between = [ops.tanh(delta * total) for delta in deltas]
        else:
            between = [_total(ops.tanh(unit * other) for other in signed) for unit in signed]
    return ops.stacked([one * other for one, other in zip(within, between, strict=True)])


Low = Annotated[Array, magnitude_threshold(keep=lambda p: 1 - p["clip"], uses=())]
High = Annotated[Array, magnitude_threshold(keep=lambda p: max(p["clip"], _LEAST), uses=())]
_CUT = ("low", "high")
Floor = Annotated[
    Array,
    signed_quantile(
        lambda deltas, p, _: _score(deltas, p), lambda p: 1 - p["ratio"], reads=("inter", "ratio"), uses=_CUT
    ),
]
Best = Annotated[Array, extremes(lambda deltas, p, _: _score(deltas, p), scoped=True, reads=("inter",), uses=_CUT)]


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

    Use it to merge experts on different tasks when ties or task_arithmetic lose too much of each.
    """
    del ratio, clip, scope
    score = _score(deltas, {"low": low, "high": high, "inter": inter})
    shares = [_mapped(*each) for each in zip(score, _floats(floor), _floats(best[1]), strict=True)]
    ends = zip(deltas, _floats(low), _floats(high), strict=True)
    cut = [ops.sign(delta) * ops.clamp(abs(delta), least, most) for delta, least, most in ends]
    merged = _total(w * share * x for w, share, x in zip(_floats(weight), shares, cut, strict=True))
    total = _total(shares)
    return scale * ops.where(total > 0, merged / ops.where(total > 0, total, 1), 0)
