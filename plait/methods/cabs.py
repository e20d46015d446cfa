"""CABS: sparse deltas that do not overlap, evenly spread. Yang et al. 2025, algorithm 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from plait import ops
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Parameter, Scale, Weight

__all__ = ["cabs"]

Kept = Annotated[int, Parameter(int, "How many entries of each block stay, the largest.", low=0)]
Block = Annotated[int, Parameter(int, "Consecutive entries of a row in a block.", low=1)]


def _check(values: Mapping[str, Any]) -> str:
    n, m = values["n"], values["m"]
    return f"it keeps n = {n} of m = {m} entries; expected at most all of them" if n > m else ""


@method(paper="https://arxiv.org/abs/2503.01874", locality="row", check=_check)
def cabs(deltas: Deltas, *, weight: Weight, n: Kept = 64, m: Block = 256, scale: Scale = 1.0) -> Array:
    """Keep of each delta the n largest of every m entries that no earlier model keeps; add up: θ₀ + λ Σ wᵢδ̂ᵢ. `[k, *shape] -> [*shape]`.

    The models take their entries in the recipe's order, so put the one that matters most first. Blocks are of
    consecutive entries of a row, the last one as long as what is left of it; the paper's code cuts the whole tensor,
    which is the same where m divides the rows. Where earlier models have left fewer than n, fewer stay: none is shared.

    Use it for a few models in an order of importance, whose changes should not overlap.
    """
    kept, taken = [], deltas[0] != deltas[0]
    for i in range(len(deltas)):
        kept.append(ops.keep_of_each(ops.where(taken, 0, deltas[i]), n, m))
        taken = taken | (kept[i] != 0)
    return ops.weighted_sum(ops.stacked(kept), scale * weight)
