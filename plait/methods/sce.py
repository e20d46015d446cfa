"""SCE: select where the models differ, calculate weights from it, erase minority signs. Wan et al. 2024 (FuseChat)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from plait import ops
from plait.methods.measures import MagnitudeThreshold, Seen, Several, Sums, summed
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Int8Mask, Measured, Parameter, Scale

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


_SPREAD = Seen(lambda deltas, *_: _spread(deltas), {})
_DIFFERING = Seen(lambda deltas, *_: ops.sign(_spread(deltas)), {})


class _Selecting(Several):
    """The spread that a fraction of those entries reaches on which the models differ at all, `[1]`; infinite where none is to.

    How many differ is counted in the pass that looks for the threshold: its rank need be known only at the end of that.
    """

    def __init__(self, fraction: float, k: int, size: int) -> None:
        self.fraction = fraction
        self.differing = Sums(_DIFFERING, 1, needed=0 < fraction < 1)
        self.threshold = MagnitudeThreshold(np.array([fraction]), size, _SPREAD, k)
        self.counting = True
        super().__init__([self.differing, self.threshold])

    def prime(self, sample: Array) -> None:
        """Look where the fraction lies in the sample."""
        spread = _spread(sample)
        self.threshold.density = np.array([self.fraction * float((spread > 0).sum()) / spread.size])
        super().prime(sample)

    def finish_pass(self) -> bool:
        """Rank the threshold, once it is known how many differ; true when it needs another pass."""
        if self.counting:
            self.counting = False
            wanted = math.floor(self.differing.result()[0] * self.fraction)
            self.threshold.rank = [wanted]
            if wanted == 0:
                self.threshold.found[:] = np.inf
                return False
        return super().finish_pass()

    def enter(self, parameters: Mapping[str, Any]) -> None:  # noqa: ARG002 - a measure's signature
        """Forget which tiles are wanted: nothing that is looked up matters here."""
        super().enter({})

    def result(self) -> Any:
        """Return the threshold."""
        return self.threshold.result()


def _selecting(parameters: Mapping[str, Any], k: int, size: int) -> _Selecting:
    return _Selecting(float(parameters["select_topk"]), k, size)


def _selected(deltas: Array, p: Mapping[str, Any], _: Any) -> Array:
    return deltas * (_spread(deltas) >= p["threshold"]) if p["select_topk"] < 1 else deltas


SpreadThreshold = Annotated[Array, Measured(_selecting, uses=(), counts=1)]
Energy = Annotated[Array, summed(_selected, squared=True)]


@method(
    paper="https://arxiv.org/abs/2408.07990",
    locality="measured",
    variants={"mergekit": {}, "official": {"select_for": "weights"}},
)
def sce(
    deltas: Deltas,
    *,
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
    del int8_mask
    selected = _selected(deltas, {"threshold": threshold, "select_topk": select_topk}, None)
    kept = selected if select_for == "merge" else deltas
    weight = energy / energy.sum() if energy.sum() > 0 else energy + 1
    return scale * ops.agreeing_mean(kept, ops.elect(kept, np.ones(len(kept))), weight)
