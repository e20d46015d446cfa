"""Loops over bytes that make tensors, run without Numba where their machine code is kept from an earlier run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["run_loop"]

_HERE = Path(__file__).parent


def run_loop(module: str, name: str, *arguments: Any) -> int:
    """Run a kernel of a module in `plait.checkpoint`, given arrays, C-contiguous, and whole numbers; return its result.

    The kernel makes no array of its own: those that it works in are given. It runs without the GIL.
    """
    signature = tuple(f"{a.dtype}[{a.ndim}]" if isinstance(a, np.ndarray) else "int64" for a in arguments)
    return _compiled(module, name, signature)(*arguments)


@cache
def _compiled(module: str, name: str, signature: tuple[str, ...]) -> Callable[..., int]:
    from plait.ops.fusing.kept import compiled

    return compiled(f"# {_mark(module)}\nfrom plait.checkpoint.{module} import {name} as run\n", signature)


@cache
def _mark(module: str) -> str:
    """Tell the module's text from any other."""
    return hashlib.blake2b((_HERE / f"{module.replace('.', '/')}.py").read_bytes(), digest_size=12).hexdigest()
