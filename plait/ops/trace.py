"""Seeing what a method computes without computing it: ops called on a `Traced` stack note themselves down.

What comes out is matched against the shapes that `plait.ops.pipeline` can run in one call. Anything else that a
method does with its stack raises `Untraceable` and is remembered, so that a method which catches that is still not
matched; such a method runs tile by tile as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

__all__ = ["Traced", "Untraceable"]

_OWN = frozenset({"op", "arguments", "troubles", "refuse"})


class Untraceable(Exception):  # noqa: N818 - not an error: the method is run another way
    """The method does something with its stack that is not noted down."""


class Traced:
    """The stack itself (`op` "input"), or what an op made of it. Arguments are Traced, generators or copied numbers.

    It is no array: asked for anything else than a product (its length, entries, shape, class, truth …) it refuses.
    """

    __slots__ = ("arguments", "op", "troubles")

    op: str
    arguments: tuple[Any, ...]
    troubles: list[str]
    """What was refused, of this value or any that came from the same stack."""

    def __init__(self, op: str = "input", arguments: tuple[Any, ...] = (), troubles: list[str] | None = None) -> None:
        object.__setattr__(self, "op", op)
        object.__setattr__(self, "arguments", arguments)
        object.__setattr__(self, "troubles", [] if troubles is None else troubles)

    def refuse(self, what: str) -> NoReturn:
        """Remember that the method cannot be traced, and raise Untraceable."""
        self.troubles.append(what)
        raise Untraceable(what)

    def __getattribute__(self, name: str) -> Any:
        if name in _OWN:
            return object.__getattribute__(self, name)
        return self.refuse(name)  # `__class__` too: isinstance() would say that it is no array

    def __mul__(self, factor: Any) -> Traced:
        return _note("times", self, factor)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"<traced {self.op}>"


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(*arguments: Any, **_: Any) -> NoReturn:
        for argument in arguments:
            if isinstance(argument, Traced):
                argument.refuse(name)
        raise Untraceable(name)

    return refuse


_TWO_SIDED = "add sub truediv floordiv mod pow matmul and or xor divmod lshift rshift"
_OTHERS = """
    imul neg pos abs invert round bool int float complex index len iter getitem setitem contains eq ne lt le gt ge
    setattr array array_ufunc array_function dlpack copy deepcopy reduce_ex call
"""
for _name in [side + name for name in _TWO_SIDED.split() for side in ("", "r", "i")] + _OTHERS.split():
    setattr(Traced, f"__{_name}__", _refusing(_name))


def _note(op: str, x: Traced, *arguments: Any) -> Traced:
    """Note an op down; numbers are copied, as the method may go on and change them."""
    return Traced(op, (x, *(_kept(argument) for argument in arguments)), x.troubles)


def _kept(argument: Any) -> Any:
    if isinstance(argument, Traced):  # first, as it refuses to be asked for other classes
        return argument
    return np.array(argument) if isinstance(argument, (np.ndarray, list, tuple)) else argument


def weighted_sum(stack: Traced, weight: Any) -> Traced:
    """Note it."""
    return _note("sum", stack, weight)


def trim(deltas: Traced, threshold: Any) -> Traced:
    """Note it."""
    return _note("trim", deltas, threshold)


def drop(deltas: Traced, density: Any, rng: Any) -> Traced:
    """Note it."""
    return _note("drop", deltas, density, rng)


def scale(x: Traced, factor: Any) -> Traced:
    """Note it."""
    return _note("scale", x, factor)


def elect(stack: Traced, weight: Any) -> Traced:
    """Note it."""
    return _note("elect", stack, weight)


def agreeing_sum(stack: Traced, sign: Any, weight: Any) -> Traced:
    """Note it."""
    return _note("vote", stack, sign, weight)


def agreeing_mean(stack: Traced, sign: Any, weight: Any) -> Traced:
    """Note it."""
    return _note("mean", stack, sign, weight)


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """Return, for every other op, one that refuses."""
    if name.startswith("__"):
        raise AttributeError(name)
    return _refusing("an op that pipelines do not have")
