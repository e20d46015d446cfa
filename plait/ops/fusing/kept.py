"""Compiling fused kernels once, and keeping them between runs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import llvmlite
import numba

__all__ = ["compiled"]

_lock = threading.Lock()


def compiled(source: str) -> Callable[..., Any]:
    """Return `run` of a kernel's text, compiled at its first call and kept in the user's cache folder.

    Numba keeps machine code beside a file and by what the file was when it was compiled; so the text is a file, under a
    name that tells it from any other. Where none can be written, each process compiles for itself.
    """
    with _lock:
        return _compiled(source)


@cache
def _compiled(source: str) -> Callable[..., Any]:
    versions = f"{numba.__version__} {llvmlite.__version__} {_helpers()}"
    name = hashlib.blake2b(f"{versions}\n{source}".encode(), digest_size=12).hexdigest()
    file = _folder() / f"plait_fused_{name}.py"
    options = {"nogil": True, "fastmath": False, "error_model": "numpy"}
    module = sys.modules[file.stem] = ModuleType(file.stem)  # machine code that was kept asks for it by name
    exec(compile(source, str(file), "exec"), vars(module))  # noqa: S102 - our own text, not the file's
    try:
        _write(file, source)
        return numba.njit(cache=True, **options)(module.run)  # type: ignore[no-any-return]
    except (OSError, RuntimeError):
        return numba.njit(**options)(module.run)  # type: ignore[no-any-return]


@cache
def _helpers() -> str:
    """Tell by content the functions that kernels call, which are compiled into them."""
    state = hashlib.blake2b(digest_size=12)
    for file in sorted((Path(__file__).parents[1] / "on_cpu").glob("*.py")):
        state.update(file.read_bytes())
    return state.hexdigest()


def _folder() -> Path:
    """Where compiled kernels are kept: $PLAIT_CACHE_DIR, or plait's part of the user's cache folder."""
    own = os.environ.get("PLAIT_CACHE_DIR")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plait"


def _write(file: Path, source: str) -> None:
    """Write the text, once: written again, it would be another file to Numba."""
    with contextlib.suppress(OSError):
        if file.read_text(encoding="utf-8") == source:
            return
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as part:
        part.write(source)
    Path(part.name).replace(file)
