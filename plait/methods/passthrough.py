"""One model's weights, as they are or scaled: the means of layer stacking ("frankenmerging")."""

from __future__ import annotations

from typing import Annotated

from plait import ops
from plait.methods.method import method
from plait.methods.vocabulary import Array, Parameter, Weights

__all__ = ["passthrough"]

Factor = Annotated[Array, Parameter(float, "Factor on the weights; 1 copies the bytes.", per_model=True)]


@method(paper="https://arxiv.org/abs/2312.15166", locality="element", max_models=1)
def passthrough(weights: Weights, *, scale: Factor = 1.0) -> Array:
    """Take one model's weights, times `scale`. `[1, *shape] -> [*shape]`.

    Depth up-scaling (Kim et al. 2023) stacks slices this way; a scale of 0 on o_proj and down_proj makes an added
    layer the identity.

    Use it to stack layers of one model or of several, and to take tensors over as they are.
    """
    return ops.weighted_sum(weights, scale)
