"""Which side computes: Numba for numpy arrays, torch for tensors. Neither is imported before it is needed."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from plait.ops import trace

__all__ = ["Array", "side"]

Array = Any  # np.ndarray or torch.Tensor; an op returns what it was given
_HOST = (np.ndarray, np.generic)  # the latter is what numpy makes of arrays without dimensions


@cache
def _on_cpu() -> Any:
    from plait.ops import on_cpu  # late: Numba takes a fifth of a second

    return on_cpu


@cache
def _on_torch() -> Any:
    from plait.ops import on_torch  # late: torch is an extra

    return on_torch


def side(*arrays: Array) -> Any:
    """Return the module that computes on such arrays and plain numbers (or that notes down what would be computed).

    numpy's side where one is numpy's and none a tensor; in all other cases torch's, which refuses what it does not know.
    """
    for x in arrays:
        if isinstance(x, trace.Traced):  # first, as it refuses to be asked for other classes
            return trace
    host = any(isinstance(x, _HOST) for x in arrays) and not any(hasattr(x, "detach") for x in arrays)
    return _on_cpu() if host else _on_torch()
