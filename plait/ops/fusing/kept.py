"""Compiling kernels once, and keeping them between runs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from plait.caches import own_cache
from plait.ops.fusing.machine import Code, Signature, loaded, made, processor

__all__ = ["compiled"]

_CHECK = 16  # bytes of hash before what is kept: LLVM trusts what it loads
_lock = threading.Lock()


def compiled(source: str, signature: Signature) -> Callable[..., int]:
    """Return `run` of a kernel's text, which takes what `signature` says, as machine code.

    That is kept in the user's cache folder under a name that tells it from any other text, processor and compiler, so
    that later processes need not import Numba. Where none can be written, each process compiles for itself.
    """
    with _lock:
        return _compiled(source, signature)


@cache
def _compiled(source: str, signature: Signature) -> Callable[..., int]:
    versions = f"{version('numba')} {version('llvmlite')} {processor()} {_helpers()}"
    name = hashlib.blake2b(f"{versions}\n{signature}\n{source}".encode(), digest_size=12).hexdigest()
    file = own_cache() / f"{name}.kernel"
    code = _read(file)
    if code is None:
        run = _by_numba(source)
        code = made(run, signature) if os.name == "posix" else None
        if code is None:
            return run
        with contextlib.suppress(OSError):
            _write(file, code)
    return loaded(code, signature)


def _by_numba(source: str) -> Callable[..., Any]:
    import numba

    module = ModuleType("plait_kernel")
    exec(compile(source, "<a kernel written by plait>", "exec"), vars(module))  # noqa: S102 - our own text
    run = getattr(module.run, "py_func", module.run)  # what was compiled already has no text of its machine code
    return numba.njit(nogil=True, fastmath=False, error_model="numpy")(run)  # type: ignore[no-any-return]


@cache
def _helpers() -> str:
    """Tell by content the functions that kernels call, which are compiled into them."""
    state = hashlib.blake2b(digest_size=12)
    ops = Path(__file__).parents[1]
    for file in (ops / "sizes.py", *sorted((ops / "on_cpu").glob("*.py"))):
        state.update(file.read_bytes())
    return state.hexdigest()


def _read(file: Path) -> Code | None:
    """Return the code that is kept, or None where there is none, or not all of it."""
    try:
        kept = file.read_bytes()
    except OSError:
        return None
    check, rest = kept[:_CHECK], kept[_CHECK:]
    if hashlib.blake2b(rest, digest_size=_CHECK).digest() != check:
        return None
    name, _, data = rest.partition(b"\n")
    return Code(name.decode(), data)


def _write(file: Path, code: Code) -> None:
    rest = code.name.encode() + b"\n" + code.data
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as part:
        part.write(hashlib.blake2b(rest, digest_size=_CHECK).digest() + rest)
    Path(part.name).replace(file)
