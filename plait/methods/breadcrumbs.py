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
from plait.ops.fusing import Grid

__all__ = ["breadcrumbs", "breadcrumbs_ties"]


class _Ends:
    """The least and the largest magnitude that is kept of each whole tensor, found side by side: `[2, k]`."""

    def __init__(self, ends: list[MagnitudeThreshold]) -> None:
        self.ends = ends

    def needed(self) -> bool:
        """Whether an end has to be looked for."""
        return any(end.needed() for end in self.ends)

    def wants_sample(self) -> bool:
        """Whether a sample helps an end."""
        return any(end.wants_sample() for end in self.ends)

    def prime(self, sample: Array) -> None:
        """Show both the sample."""
        for end in self._open():
            end.prime(sample)

    def _open(self) -> list[MagnitudeThreshold]:
        return [end for end in self.ends if end.needed()]

    def fork(self) -> _Ends:
        """Return an empty copy at the same stage."""
        return _Ends([end.fork() for end in self.ends])

    def enter(self, parameters: Mapping[str, Any]) -> None:
        """Do nothing: both look at the stack itself."""

    def update(self, stack: Array, start: int, rng: Any) -> None:
        """Count one tile's magnitudes for either."""
        for end in self._open():
            end.update(stack, start, rng)

    def update_grid(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> list[bool] | None:
        """Count a batch's magnitudes for either; both can, or neither."""
        finite = [end.update_grid(grid, code, start, rng, has_base=has_base) for end in self._open()]
        return finite[0]

    def join(self, other: _Ends) -> None:
        """Add a fork's counts."""
        for end, more in zip(self.ends, other.ends, strict=True):
            end.join(more)

    def finish_pass(self) -> bool:
        """Settle what is known now; true when some is not."""
        for end in self._open():
            end.finish_pass()
        return self.needed()

    def result(self) -> Array:
        """Return both: 0 and infinity where nothing is too small or too large."""
        return np.stack([end.result() for end in self.ends])


def _ends(parameters: Mapping[str, Any], k: int, size: int) -> _Ends:  # noqa: ARG001 - a measure's signature
    """Measure what is kept: all but outliers, of which ⌊γ·size⌋ are the largest, and all but the smallest.

    Fewer are outliers where otherwise less than ⌊density·size⌋ were left. A density of 1 keeps all.
    """
    density, gamma = (np.asarray(parameters[key], np.float64).reshape(-1) for key in ("density", "gamma"))
    wanted = np.floor(density * size)
    outliers = np.minimum(np.floor(gamma * size), size - wanted)
    partly = density < 1
    last, first = np.where(partly, outliers + wanted, size), np.where(partly, outliers + 1, 1)
    least, largest = (np.clip(rank / max(1, size), 1e-9, 1 - 1e-9) for rank in (last, first))
    # 0: nothing is too small; infinity: everything is
    least = np.where(wanted == 0, 0.0, np.where(last >= size, 1.0, least))
    largest = np.where((first == 1) | (wanted == 0), 0.0, largest)  # infinity: nothing is too large
    whole = parameters["per"] != "row"
    ends = [MagnitudeThreshold(share * whole, size) for share in (least, largest)]
    for end, ranks in zip(ends, (last, first), strict=True):
        end.rank = [int(rank) for rank in ranks]
    return _Ends(ends)


def _selected(deltas: Array, p: Mapping[str, Any]) -> Array:
    if p["per"] == "row":
        return _of_rows(deltas, p["density"], p["gamma"])
    lowest, highest = p["ends"]
    kept = ops.trim(deltas, lowest)
    return kept if (highest == np.inf).all() else ops.where(abs(kept) <= highest, kept, 0)


def _of_rows(deltas: Array, density: Array, gamma: Array) -> Array:
    """Remove the ⌊γn⌋ largest of each row of n, and of the rest keep the ⌊density·n⌋ largest."""
    columns = deltas.shape[-1]
    rank, end = ops.ranks(deltas), columns - gamma * columns // 1
    return ops.where((rank < end) & (rank >= end - density * columns // 1), deltas, 0)


Ends = Annotated[Array, Measured(_ends, counts=2)]
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
    ends: Ends,
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
    numbers = {"density": density, "gamma": gamma, "ends": ends, "per": per}
    kept = rescaled(_selected(deltas, numbers), kept_norm, density, rescale)
    return add_up(kept, weight, scale=scale, normalize=normalize)


@method(paper="https://arxiv.org/abs/2312.06795", locality="measured")
def breadcrumbs_ties(
    deltas: Deltas,
    *,
    ends: Ends,
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
    numbers = {"density": density, "gamma": gamma, "ends": ends, "per": per}
    kept = rescaled(_selected(deltas, numbers), kept_norm, density, rescale)
    return scale * agree(kept, weight, merge=merge, vote=vote)


breadcrumbs.when(per="row", locality="row")(breadcrumbs.run)
breadcrumbs_ties.when(per="row", locality="row")(breadcrumbs_ties.run)
