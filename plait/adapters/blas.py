"""Linear algebra on one thread a call: sums that are shared out among threads depend on their number."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

__all__ = ["on_one_thread"]

_NAMES = ("scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads")


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Let numpy's OpenBLAS use one thread in the calling thread's program, until left.

    Where numpy has another library, nothing is changed: the same machine still gives the same bytes.
    """
    found = _switches()
    if found is None:
        yield
        return
    get, put = found
    before = get()
    put(1)
    try:
        yield
    finally:
        put(before)


@cache
def _switches() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """Find the functions (get, set) of the OpenBLAS that came with numpy."""
    package = Path(np.__file__).parent
    for file in sorted([*package.with_name("numpy.libs").glob("*openblas*"), *package.glob(".dylibs/*openblas*")]):
        if file.suffix == ".dll" and sys.platform != "win32":
            continue
        try:
            library = ctypes.CDLL(str(file))
        except OSError:
            continue
        for name in _NAMES:
            get, put = (getattr(library, name.format(verb), None) for verb in ("get", "set"))
            if get is not None and put is not None:
                get.restype, get.argtypes, put.restype, put.argtypes = ctypes.c_int, [], None, [ctypes.c_int]
                return get, put
    return None
