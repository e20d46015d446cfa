"""The words that methods declare their parameters with: each parameter once, typed, in a signature.

A method's signature says everything that the recipe check, `plait methods`, the docs and the search space need:

    def ties(deltas: Deltas, *, weight: Weight, density: Density = 1.0, scale: Scale = 1.0) -> Array

The first argument says which space the method works in and what it sees. Stacks are `[k, *shape]`, one entry a
model in recipe order; per-model numbers arrive as `[k, 1, ..., 1]`, ready to multiply.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from plait.methods.measures import Measure

__all__ = [
    "Array",
    "Coefficients",
    "Deltas",
    "DeltasGram",
    "Density",
    "Flag",
    "Fraction",
    "Int8Mask",
    "LayerPosition",
    "Measured",
    "Merge",
    "Normalize",
    "Number",
    "Parameter",
    "Random",
    "Rescale",
    "Scale",
    "Scope",
    "Sees",
    "Stack",
    "Vote",
    "Weight",
    "Weights",
    "WeightsGram",
    "ZeroVote",
]

Array: TypeAlias = Any
"""A numpy array or a torch tensor: methods are written once for both."""

Coefficients: TypeAlias = Any
"""`[k]` float64: how much of each input; what a span method returns."""


@dataclass(frozen=True, slots=True)
class Sees:
    """What the first argument of a method is: weights or differences from the base, entries or their Gram matrix."""

    space: Literal["weights", "deltas"]
    gram: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter that a recipe may set. Ranges are closed; None means unbounded."""

    kind: type
    summary: str
    per_model: bool = False
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    also: str = ""
    """Another name that recipes may use for it (mergekit's)."""
    switch: tuple[str, str] | None = None
    """What false and true mean, for a choice that recipes may also write as a switch."""

    def read(self, value: Any) -> Any:
        """Return a recipe's scalar as the method takes it; `fault` must have passed it.

        >>> Parameter(float, "").read("0.5")
        0.5
        """
        if self.switch and isinstance(value, bool):
            return self.switch[value]
        return self.kind(value if self.kind in {bool, str} else _number(value))

    def fault(self, value: object) -> str:
        """Say what is wrong with one scalar value, or return "". Numbers may be quoted."""
        if self.switch and isinstance(value, bool):
            return ""
        if self.kind is bool:
            return "" if isinstance(value, bool) else "expected true or false"
        if self.kind is str:
            return "" if value in self.choices else f"expected one of {', '.join(self.choices)}"
        number = _number(value)
        if number is None:
            return f"expected {self.range_text()}"
        below = self.low is not None and number < self.low
        above = self.high is not None and number > self.high
        whole = self.kind is not int or number.is_integer()
        return f"expected {self.range_text()}" if below or above or not whole else ""

    def range_text(self) -> str:
        """The values that it takes, in words.

        >>> Parameter(float, "", low=0, high=1).range_text()
        'a number from 0 to 1'
        """
        if self.kind is bool:
            return "true or false"
        if self.choices:
            return " | ".join(self.choices)
        noun = "a whole number" if self.kind is int else "a number"
        if self.low is not None and self.high is not None:
            return f"{noun} from {self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"{noun}, {self.low:g} or more"
        return noun if self.high is None else f"{noun}, {self.high:g} or less"


def _number(value: object) -> float | None:
    """Return a finite number, quoted or not; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (Real, str)) or (isinstance(value, str) and "_" in value):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True, slots=True)
class Measured:
    """A keyword argument that the engine gathers in a pass over the tensor (or the whole model) beforehand."""

    make: Callable[..., Measure]
    """Called with (parameters, k, size)."""
    scoped: bool = False
    """Whether `scope: model` gathers it over the whole model."""
    depends: Callable[[Mapping[str, Any]], Any] | None = None
    """What of the parameters, and of what was measured before, its result depends on; None: all of them.

    Tensors between which that differs are not measured together.
    """
    uses: tuple[str, ...] | None = None
    """What it looks up of what comes before it in the signature; None: any of it.

    What does not look up each other is measured in the same pass.
    """
    counts: int = 0
    """How many numbers a model it finds by counting bit patterns, which takes some megabytes for each."""


class _Random:
    """Marks the argument that receives the tile's `plait.ops.Rng`."""


class _Stack:
    """Marks a post-step's argument that receives what the method merged."""


class _LayerPosition:
    """Marks a post-step's argument that receives where the tensor's layer lies."""


Weights = Annotated[Array, Sees("weights")]
Deltas = Annotated[Array, Sees("deltas")]
WeightsGram = Annotated[Array, Sees("weights", gram=True)]
DeltasGram = Annotated[Array, Sees("deltas", gram=True)]
Random = Annotated[Any, _Random]
Stack = Annotated[Array, _Stack]
"""For post-steps: the stack that the method merged, `[k, *shape]`."""
LayerPosition = Annotated[float, _LayerPosition]
"""For post-steps: l / (L − 1) for the l-th of L layers, 1 for an only one; None for tensors outside the layers."""

Weight = Annotated[Array, Parameter(float, "How much of this model.", per_model=True)]
Density = Annotated[
    Array, Parameter(float, "Fraction of each model's delta that is kept.", per_model=True, low=0, high=1)
]
Scale = Annotated[float, Parameter(float, "Factor on the merged delta (the papers' λ).", also="lambda")]
Normalize = Annotated[bool, Parameter(bool, "Divide by the sum of the weights that took part.")]
Rescale = Annotated[
    str,
    Parameter(
        str,
        "Make up for what was dropped: l1 restores each delta's L1 norm over its tensor (true means l1), probability "
        "divides by the density (the paper's), none leaves it (false means none).",
        choices=("l1", "probability", "none"),
        switch=("none", "l1"),
    ),
]
Merge = Annotated[
    str,
    Parameter(
        str,
        "What becomes of the weighted entries that have the elected sign: mean divides their sum by their weights "
        "(normalize: true), sum leaves it (normalize: false), count divides it by how many they are, max takes the largest.",
        choices=("mean", "sum", "count", "max"),
        also="normalize",
        switch=("sum", "mean"),
    ),
]
Vote = Annotated[
    str,
    Parameter(
        str,
        "What elects a sign: the weighted deltas' sum, the total of the deltas without weights, or their signs' frequency.",
        choices=("weighted", "total", "frequency"),
    ),
]
ZeroVote = Annotated[
    str,
    Parameter(
        str,
        "The sign where the vote is 0: plus, or the majority of all elected signs.",
        choices=("plus", "majority"),
    ),
]
Scope = Annotated[
    str,
    Parameter(str, "Over what magnitudes are ranked: each tensor, or the whole model.", choices=("tensor", "model")),
]
Int8Mask = Annotated[bool, Parameter(bool, "Accepted for mergekit's recipes; has no effect.")]
Fraction = Annotated[float, Parameter(float, "Where between the two models: 0 is the base.", low=0, high=1)]
Flag = Annotated[bool, Parameter(bool, "A switch.")]
Number = Annotated[float, Parameter(float, "A number.")]
