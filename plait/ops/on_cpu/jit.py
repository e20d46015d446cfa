"""How every kernel is compiled, and the two casts that Numba lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core import types
from numba.extending import intrinsic

__all__ = ["bits_of", "float_of", "kernel"]

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile at first call, once per types, without the GIL; IEEE arithmetic as written, so no fused multiply-add."""
    options = {"nogil": True, "fastmath": False, "error_model": "numpy"}
    try:
        return cast("F", numba.njit(cache=True, **options)(function))
    except RuntimeError:  # neither the installation nor the home folder can be written: compile in each process
        return cast("F", numba.njit(**options)(function))


def _reinterpret(pairs: dict[Any, Any]) -> Any:
    def typed(_context: Any, value: Any) -> Any:
        to = pairs[value]

        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(to))

        return to(value), generate

    return intrinsic(typed)


bits_of = _reinterpret({types.float32: types.uint32, types.float64: types.uint64})
float_of = _reinterpret({types.uint32: types.float32, types.uint64: types.float64})
