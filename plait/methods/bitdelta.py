"""BitDelta: a delta as its signs and one number. Liu et al. 2024."""

from __future__ import annotations

from typing import Annotated

from plait import ops
from plait.methods.measures import summed
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Parameter, Scale, Weight

__all__ = ["bitdelta"]

ZeroAs = Annotated[
    str,
    Parameter(
        str,
        "What an unchanged entry becomes, as one bit has no zero: plus (the authors' code), minus, or zero all the same.",
        choices=("plus", "minus", "zero"),
    ),
]
Magnitudes = Annotated[Array, summed(lambda deltas, *_: ops.stacked([*abs(deltas), deltas[0] * 0 + 1]))]
"""`[k + 1]`: Σ |δᵢ|, and the number of entries."""


@method(paper="https://arxiv.org/abs/2402.10193", locality="measured")
def bitdelta(
    deltas: Deltas, *, magnitudes: Magnitudes, weight: Weight = 1.0, scale: Scale = 1.0, zero_as: ZeroAs = "plus"
) -> Array:
    """Keep of each delta its signs and its mean magnitude: θ₀ + Σ wᵢ αᵢ sgn δᵢ, αᵢ = mean |δᵢ|. `[k, *shape] -> [*shape]`.

    One α a tensor, as the paper starts from; its later training of α on data is not done. The paper compresses one
    model, and of it only the linear layers of the blocks: other tensors are for `tensors:` to leave alone. Several
    models are compressed each, then added up by weight.

    Use it to see what a fine-tune loses when its delta is stored in one bit an entry, before serving it so.
    """
    signs = ops.sign(deltas)
    if zero_as != "zero":
        signs = ops.where(signs == 0, 1 if zero_as == "plus" else -1, signs)
    return scale * ops.weighted_sum(signs, weight * magnitudes[:-1] / ops.maximum(magnitudes[-1], 1))
