"""EMR-Merging: elect one vector, and for each task a mask and a rescaler of it. Huang et al. 2024."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from plait import ops
from plait.methods.measures import summed
from plait.methods.method import method
from plait.methods.vocabulary import Array, Deltas, Parameter, Scale

__all__ = ["Task", "emr", "task_of"]

Task = Annotated[
    int,
    Parameter(int, "The model to rebuild, by its place in the recipe from 1 on; 0 gives what all share.", low=0),
]
RescaledOver = Annotated[
    str,
    Parameter(
        str,
        "Over what a task's rescaler is measured: the whole model (the paper's) or each tensor.",
        choices=("model", "tensor"),
    ),
]


def task_of(deltas: Array, task: int) -> Array:
    """Return the delta of a task, counted from 1. Raises ValueError when there is no such model."""
    if not 1 <= task <= len(deltas):
        raise ValueError(f"task is {task}, but there are {len(deltas)} models; expected 0 to {len(deltas)}")
    return deltas[task - 1]


def _elected(deltas: Array) -> Array:
    sign = ops.sign(ops.weighted_sum(deltas, np.ones(len(deltas))))
    return ops.largest(deltas * (deltas * sign > 0))


def _masked(deltas: Array, task: int) -> Array:
    elected = _elected(deltas)
    return elected * (ops.sign(task_of(deltas, task)) * elected > 0)


def _magnitudes(deltas: Array, p: Mapping[str, Any], _: Any) -> Array:
    task = max(1, p["task"])  # of no task nothing is measured
    return abs(ops.stacked([task_of(deltas, task), _masked(deltas, task)]))


Sizes = Annotated[Array, summed(_magnitudes, scoped=True, needed=lambda p: p["task"] > 0, reads=("task",))]
"""`[2]`: Σ |δ_t|, and Σ |m_t ⊙ τ|."""


@method(paper="https://arxiv.org/abs/2405.17461", locality="measured")
def emr(deltas: Deltas, *, sizes: Sizes, task: Task = 0, scale: Scale = 1.0, scope: RescaledOver = "model") -> Array:
    """Elect a sign per entry and take the largest delta that has it: τ = σ max |δᵢ|, σ = sgn Σ δᵢ. `[k, *shape] -> [*shape]`.

    `task: t` rebuilds model t from τ: θ₀ + λ_t m_t ⊙ τ. The mask m_t keeps the entries of τ that have the sign of δ_t,
    and the rescaler λ_t = Σ |δ_t| / Σ |m_t ⊙ τ| over the whole model restores their size (the authors' code adds up
    tensors' means there instead of entries). Where Σ δᵢ is 0 the base is left as it is; the authors' code elects minus.
    The paper has no `scale`.

    Use it to see what one shared vector and a bit an entry keep of each model (`task`), or for a merge that keeps
    large changes.
    """
    del scope
    if task == 0:
        return scale * _elected(deltas)
    whole, kept = sizes
    return scale * ops.scale(_masked(deltas, task), whole / (kept + (kept == 0)))
