"""Between raw elements and float32, in loops that need no Numba once their machine code is kept: see `plait.checkpoint.loops`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from plait.checkpoint.loops import run_loop
from plait.ops.codec import KINDS

__all__ = ["are_finite", "load", "store"]

_ROOM = 1024  # floats, in the first-level cache


def load(raw: npt.NDArray[np.uint8], code: str, values: npt.NDArray[Any]) -> None:
    """Decode elements to floats; what is not finite stays so."""
    kind, view = KINDS[code]
    run_loop("element_loops", "load_run", kind, raw.view(view), values)


def store(values: npt.NDArray[np.float32], code: str, out: npt.NDArray[np.uint8]) -> bool:
    """Round floats to elements, to nearest even; return whether all that was written is finite."""
    kind, view = KINDS[code]
    return run_loop("element_loops", "store_run", kind, values, out.view(view)) == 0


def are_finite(raw: npt.NDArray[np.uint8], code: str) -> bool:
    """Whether all elements are finite.

    >>> are_finite(np.array([1, np.inf], np.float32).view(np.uint8), "F32")
    False
    """
    kind, view = KINDS[code]
    return run_loop("element_loops", "finite_run", kind, raw.view(view), np.empty(_ROOM, np.float32)) == 0
