"""Which side computes: Numba for numpy arrays, torch for tensors. Neither is imported before it is needed."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from plait.ops import trace

__all__ = ["Array", "side"]

Array = Any  # np.ndarray or torch.Tensor; an op returns what it was given
_HOST = (np.ndarray, np.generic)  # the latter is what numpy makes of arrays without dimensions
_NUMBERS = (bool, int, float)


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

    numpy's side where one is numpy's and all others are that or numbers; torch's in all other cases.
    """
    for x in arrays:
        if isinstance(x, trace.Traced):  # first, as it refuses to be asked for other classes
            return trace
    host = any(isinstance(x, _HOST) for x in arrays) and all(isinstance(x, (*_HOST, *_NUMBERS)) for x in arrays)
    return _on_cpu() if host else _on_torch()
