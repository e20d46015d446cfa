"""Which side computes: Numba for numpy arrays, torch for tensors. Neither is imported before it is needed."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from plait.ops import trace

__all__ = ["Array", "side"]

Array = Any  # np.ndarray or torch.Tensor; an op returns what it was given


@cache
def _on_cpu() -> Any:
    from plait.ops import on_cpu  # late: Numba takes a fifth of a second

    return on_cpu


@cache
def _on_torch() -> Any:
    from plait.ops import on_torch  # late: torch is an extra

    return on_torch


def side(x: Array) -> Any:
    """Return the module that computes on such an array (or that notes down what would be computed)."""
    if isinstance(x, trace.Traced):  # first, as it refuses to be asked for other classes
        return trace
    return _on_cpu() if isinstance(x, np.ndarray) else _on_torch()
