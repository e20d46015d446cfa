"""The median of the models, entry by entry. Yin et al. 2018, definition 1 (there, of gradients)."""

from __future__ import annotations

from plait import ops
from plait.methods.method import method
from plait.methods.vocabulary import Array, Weights

__all__ = ["median"]


@method(paper="https://arxiv.org/abs/1803.01498", locality="element")
def median(weights: Weights) -> Array:
    """Take, entry by entry, the median of the models: medᵢ θᵢ. `[k, *shape] -> [*shape]`.

    Of an even number of models the mean of the middle two, so that of two it is their average. A minority of models
    cannot move an entry beyond the others', however far out theirs is.

    Use it for a soup of three models or more when some of them may be bad.
    """
    return ops.median(weights)
