"""Between raw elements and float32, in loops that need no Numba once their machine code is kept: see `plait.checkpoint.loops`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from plait.checkpoint.loops import run_loop

__all__ = ["KINDS", "are_finite", "load", "store"]

_ROOM = 1024  # floats, in the first-level cache

KINDS: dict[str, tuple[int, Any]] = {"BF16": (0, np.uint16), "F16": (1, np.uint16), "F32": (2, np.float32)}
"""Codes of the element types that there are loops for; by what number kernels know each, and how they see its bytes."""


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
