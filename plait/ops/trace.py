"""Seeing what a method computes without computing it: ops called on a `Traced` stack note themselves down.

What comes out is matched against the shapes that `plait.ops.pipeline` can run in one call. Anything else that a
method does with its stack raises `Untraceable`, and the method runs tile by tile as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

__all__ = ["Traced", "Untraceable"]


class Untraceable(AttributeError):  # noqa: N818 - not an error: the method is run another way
    """The method does something with its stack that is not noted down."""


@dataclass(frozen=True, eq=False)
class Traced:
    """The stack itself (`op` "input"), or what an op made of it. Arguments are Traced or numbers."""

    op: str = "input"
    arguments: tuple[Any, ...] = ()

    __array_ufunc__ = None  # so that numpy's numbers leave multiplication to this class

    def __mul__(self, factor: Any) -> Traced:
        return Traced("times", (self, factor))

    __rmul__ = __mul__

    def __getattr__(self, name: str) -> NoReturn:
        raise Untraceable(name)


def weighted_sum(stack: Traced, weight: Any) -> Traced:
    """Note it."""
    return Traced("sum", (stack, weight))


def trim(deltas: Traced, threshold: Any) -> Traced:
    """Note it."""
    return Traced("trim", (deltas, threshold))


def drop(deltas: Traced, density: Any, rng: Any) -> Traced:
    """Note it."""
    return Traced("drop", (deltas, density, rng))


def scale(x: Traced, factor: Any) -> Traced:
    """Note it."""
    return Traced("scale", (x, factor))


def elect(stack: Traced, weight: Any) -> Traced:
    """Note it."""
    return Traced("elect", (stack, weight))


def agreeing_sum(stack: Traced, sign: Traced, weight: Any) -> Traced:
    """Note it."""
    return Traced("vote", (stack, sign, weight))


def agreeing_mean(stack: Traced, sign: Traced, weight: Any) -> Traced:
    """Note it."""
    return Traced("mean", (stack, sign, weight))


def __getattr__(name: str) -> NoReturn:
    """Refuse any other op."""
    raise Untraceable(name)
