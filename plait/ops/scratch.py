"""Memory that ops reuse from tile to tile: one arena a thread, emptied when its scope ends.

A fresh array of a megabyte costs more in page faults than the arithmetic that fills it, so inside a
`tile_scope` the results of ops are slices of one buffer that stays mapped, and in the caches.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["empty", "tile_scope"]

ALIGNMENT = 64  # a cache line, and the widest vector register
LIMIT = 1 << 26  # bytes that a thread's arena may keep; what does not fit comes from numpy


class _Arena:
    """One thread's buffer. `used` may pass the end of it: then it tells how much the next one should hold."""

    __slots__ = ("block", "depth", "origin", "size", "used", "wanted")

    def __init__(self) -> None:
        self.block = np.empty(0, np.uint8)
        self.origin = self.size = self.used = self.wanted = self.depth = 0

    def grow(self) -> None:
        """Make room for all that any scope so far has asked for, up to `LIMIT`."""
        self.size = min(self.wanted, LIMIT)
        self.block = np.empty(self.size + ALIGNMENT, np.uint8)
        self.origin = -int(self.block.ctypes.data) % ALIGNMENT


class _Thread(threading.local):
    """What each thread has for itself."""

    def __init__(self) -> None:
        self.arena = _Arena()


_thread = _Thread()


class _Scope:
    """What `tile_scope` returns."""

    __slots__ = ("arena", "mark")

    def __enter__(self) -> None:
        arena = self.arena = _thread.arena
        if arena.depth == 0 and arena.size < arena.wanted and arena.size < LIMIT:
            arena.grow()
        self.mark = arena.used
        arena.depth += 1

    def __exit__(self, *_: object) -> None:
        self.arena.depth -= 1
        self.arena.used = self.mark


def tile_scope() -> _Scope:
    """Let `empty`, and so the results of ops on numpy arrays, come from this thread's reused buffer.

    What was made inside is valid until the scope ends; copy what must outlive it. Scopes nest: an inner
    scope gives back only its own.

    >>> with tile_scope():
    ...     first = empty((2, 3), np.float32)
    ...     with tile_scope():
    ...         second = empty((4,), np.float32)
    ...     third = empty((4,), np.float32)
    >>> first.shape, np.shares_memory(first, second)
    ((2, 3), False)
    """
    return _Scope()


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Make an uninitialised C-contiguous array: in a `tile_scope` from its buffer, elsewhere as np.empty does.

    >>> empty((2, 3), np.float64).shape
    (2, 3)
    """
    arena = _thread.arena
    if arena.depth == 0:
        return np.empty(shape, dtype)
    start = arena.used
    size = math.prod(shape) * np.dtype(dtype).itemsize
    end = start + (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    arena.used = end
    if end > arena.size:
        arena.wanted = max(arena.wanted, end)
        return np.empty(shape, dtype)
    made: npt.NDArray[Any] = np.ndarray(shape, dtype, arena.block, arena.origin + start)
    return made
