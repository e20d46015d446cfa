"""Seeing what a method computes without computing it: a `Traced` stack notes down what is done with it.

Arithmetic, comparisons, entries of the stack and the ops that are listed here become a graph, from which
`plait.ops.fusing` writes one loop. Anything else raises `Untraceable` and is remembered, so that a method which catches
that is still not fused; such a method runs op by op as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np

__all__ = ["Traced", "Untraceable"]

_OWN = frozenset({"op", "arguments", "models", "boolean", "troubles", "refuse"})


class Untraceable(Exception):  # noqa: N818 - not an error: the method is run another way
    """The method does something with its stack that is not noted down."""


class Traced:
    """The stack itself (`op` "input"), or what was made of it; arguments are Traced, numbers or generators.

    It is no array: asked for anything that is not noted down (shape, class, truth …) it refuses.
    """

    __slots__ = ("arguments", "boolean", "models", "op", "troubles")

    op: str
    arguments: tuple[Any, ...]
    models: int
    """Entries along the first axis of a stack; 0 for a single array. A stack of one goes with a stack of any."""
    boolean: bool
    troubles: list[str]
    """What was refused, of this value or any that came from the same stack."""

    def __init__(
        self,
        op: str = "input",
        arguments: tuple[Any, ...] = (),
        *,
        models: int = 1,
        boolean: bool = False,
        troubles: list[str] | None = None,
    ) -> None:
        values = (op, arguments, models, boolean, [] if troubles is None else troubles)
        for name, value in zip(("op", "arguments", "models", "boolean", "troubles"), values, strict=True):
            object.__setattr__(self, name, value)

    def refuse(self, what: str) -> NoReturn:
        """Remember that the method cannot be traced, and raise Untraceable."""
        self.troubles.append(what)
        raise Untraceable(what)

    def __getattribute__(self, name: str) -> Any:
        if name in _OWN:
            return object.__getattribute__(self, name)
        return self.refuse(name)  # `__class__` too: isinstance() would say that it is no array

    def __len__(self) -> int:
        return self.models or self.refuse("the length of a single array")

    def __getitem__(self, index: Any) -> Traced:
        if type(index) is slice and self.models:
            return stacked(*(self[i] for i in range(self.models)[index]))
        if index is None and not self.models:
            return _note("stacked", (self,), models=1, boolean=self.boolean)
        if type(index) is not int or not -self.models <= index < self.models:
            self.refuse("an entry that is no model")
        return _note("item", (self, index % self.models), models=0, boolean=self.boolean)

    def __iter__(self) -> Iterator[Traced]:
        return iter([self[index] for index in range(len(self))])

    def __array_ufunc__(self, ufunc: Any, call: str, *operands: Any, **more: Any) -> Traced:
        """Note down what numpy was asked to do: with an array first, arithmetic comes this way."""
        op = _UFUNCS.get(ufunc)
        if op is None or call != "__call__" or more:
            self.refuse("a function of numpy's")
        return _elementwise(op, *operands, boolean=op in _COMPARED)

    def __repr__(self) -> str:
        return f"<traced {self.op}>"


_COMPARED = {"lt", "le", "gt", "ge", "eq", "ne"}
_UFUNCS: dict[Any, str] = {
    np.add: "add",
    np.subtract: "sub",
    np.multiply: "mul",
    np.true_divide: "truediv",
    np.absolute: "abs",
    np.negative: "neg",
    np.less: "lt",
    np.less_equal: "le",
    np.greater: "gt",
    np.greater_equal: "ge",
    np.equal: "eq",
    np.not_equal: "ne",
}


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(*arguments: Any, **_: Any) -> NoReturn:
        for argument in arguments:
            if isinstance(argument, Traced):
                argument.refuse(name)
        raise Untraceable(name)

    return refuse


def _note(op: str, arguments: tuple[Any, ...], *, models: int | None = None, boolean: bool = False) -> Traced:
    """Note an op down. All stacks in it must be of one length, or of one entry, or single arrays."""
    traced = [argument for argument in arguments if isinstance(argument, Traced)]
    made = _length(arguments, traced[0]) if models is None else models
    troubles = traced[0].troubles
    if any(argument.troubles is not troubles for argument in traced):
        traced[0].refuse("arrays of two tracings")
    return Traced(op, arguments, models=made, boolean=boolean, troubles=troubles)


def _length(operands: tuple[Any, ...], first: Traced) -> int:
    """Tell how many models operands make together, as arrays broadcast: those of more than one entry are as long."""
    lengths = {_models(operand) for operand in operands}
    if len(lengths - {0, 1}) > 1:
        first.refuse("stacks of different lengths")
    return max(lengths)


def _models(operand: Any) -> int:
    """Return the entries along an operand's first axis: 0 of single arrays and of numbers that go with any."""
    if isinstance(operand, Traced):
        return operand.models
    return operand.size if type(operand) is np.ndarray and operand.ndim == 1 else 0


def number(value: Any) -> Any:
    """Return an operand as graphs keep it: Traced, a Python number, float32 `[k]` for a number per model, or `[]`.

    A number per model has shape `[k, 1, …]`; one of shape `[1]` goes with anything. Numbers are copied, as the method
    may go on and change them. A numpy scalar is neither, nor are float64 numbers: they would have numpy promote.
    """
    if isinstance(value, Traced):
        return value
    if type(value) in {int, float}:
        return float(value)
    if type(value) is not np.ndarray or value.dtype != np.float32:
        return None
    if value.shape == (1,):
        return np.array(value[0])
    return np.array(value.reshape(-1)) if value.ndim > 1 and value.shape[0] == value.size > 0 else None


def _narrowed(value: Any) -> Any:
    """Return float64 numbers that are float32's as such: to compare with the one is to compare with the other."""
    if type(value) is np.ndarray and value.dtype == np.float64:
        narrow = value.astype(np.float32)
        return narrow if (narrow == value).all() else value
    return value


def _elementwise(op: str, *operands: Any, boolean: bool = False, of_booleans: bool = False) -> Traced:
    first = next(operand for operand in operands if isinstance(operand, Traced))
    exact = _narrowed if boolean else (lambda value: value)
    kept = tuple(number(exact(operand)) for operand in operands)
    if any(operand is None for operand in kept):
        first.refuse("a number of a type of its own")
    if op == "mul" and any(isinstance(operand, Traced) and not operand.boolean for operand in kept):
        # what is true or false counts as 1 or 0 (but times a plain number it would be an integer)
        kept = tuple(_counted(operand) for operand in kept)
    traced = [operand for operand in kept if isinstance(operand, Traced)]
    wrong = [operand for operand in traced[op == "where" :] if operand.boolean != of_booleans]
    if wrong or (of_booleans and len(traced) < len(kept)):
        first.refuse("arithmetic with truth values")
    return _note(op, kept, boolean=boolean)


def _counted(operand: Any) -> Any:
    is_truth = isinstance(operand, Traced) and operand.boolean
    return _note("where", (operand, 1.0, 0.0)) if is_truth else operand


def _operator(op: str, *, turned: bool = False, boolean: bool = False, of_booleans: bool = False) -> Any:
    def apply(self: Traced, *others: Any) -> Traced:
        operands = (*others, self) if turned else (self, *others)
        return _elementwise(op, *operands, boolean=boolean, of_booleans=of_booleans)

    return apply


def _squared(self: Traced, power: Any) -> Traced:
    return _elementwise("mul", self, self) if type(power) is int and power == 2 else self.refuse("a power")


for _name in ("add", "sub", "mul", "truediv"):
    setattr(Traced, f"__{_name}__", _operator(_name))
    setattr(Traced, f"__r{_name}__", _operator(_name, turned=True))
for _name in sorted(_COMPARED):
    setattr(Traced, f"__{_name}__", _operator(_name, boolean=True))
for _name in ("and", "or"):
    setattr(Traced, f"__{_name}__", _operator(_name, boolean=True, of_booleans=True))
for _name, _method in (
    ("abs", _operator("abs")),
    ("neg", _operator("neg")),
    ("invert", _operator("invert", boolean=True, of_booleans=True)),
    ("pow", _squared),
    ("hash", object.__hash__),
):
    setattr(Traced, f"__{_name}__", _method)

_TWO_SIDED = "floordiv mod matmul xor divmod lshift rshift"
_OTHERS = """
    rand ror rpow ipow iadd isub imul itruediv iand ior pos round bool int float complex index contains setitem
    setattr array array_function dlpack copy deepcopy reduce_ex call
"""
for _name in [side + name for name in _TWO_SIDED.split() for side in ("", "r", "i")] + _OTHERS.split():
    setattr(Traced, f"__{_name}__", _refusing(_name))


def _per_model(value: Any, stack: Traced, *, or_one: bool = False) -> Any:
    """Return the numbers of an op, float32 `[k]`, as ops have them: an array of any shape, or for some one number."""
    if isinstance(value, Traced):
        value.refuse("numbers made of the stack")
    each = np.array(value, np.float32).reshape(-1)
    if or_one and each.size == 1:
        return np.array(each[0])
    if each.size != stack.models:
        raise ValueError(f"one number per model: {stack.models} models, but {each.size} numbers")
    return each


def weighted_sum(stack: Traced, weight: Any) -> Traced:
    """Note it."""
    return _note("weighted_sum", (stack, _per_model(weight, stack)), models=0)


def trim(deltas: Traced, threshold: Any) -> Traced:
    """Note it."""
    return _note("trim", (deltas, _per_model(threshold, deltas)))


def drop(deltas: Traced, density: Any, rng: Any) -> Traced:
    """Note it."""
    if isinstance(density, Traced):
        deltas.refuse("a probability per entry")
    return _note("drop", (deltas, np.array(density), rng))


def scale(x: Traced, factor: Any) -> Traced:
    """Note it."""
    return _note("scale", (x, _per_model(factor, x, or_one=True)))


def elect(stack: Traced, weight: Any) -> Traced:
    """Note it."""
    return _note("elect", (stack, _per_model(weight, stack)), models=0)


def agreeing_sum(stack: Traced, sign: Any, weight: Any) -> Traced:
    """Note it."""
    return _agreeing("agreeing_sum", stack, sign, weight)


def agreeing_mean(stack: Traced, sign: Any, weight: Any) -> Traced:
    """Note it."""
    return _agreeing("agreeing_mean", stack, sign, weight)


def _agreeing(op: str, stack: Traced, sign: Any, weight: Any) -> Traced:
    if not isinstance(sign, Traced) or sign.models or sign.boolean:
        stack.refuse("a sign that was not elected")
    return _note(op, (stack, sign, _per_model(weight, stack)), models=0)


def largest(deltas: Traced) -> Traced:
    """Note it."""
    return _note("largest", (deltas,), models=0)


def clamp(x: Traced, low: Any, high: Any) -> Traced:
    """Note it."""
    return _elementwise("clamp", x, low, high)


def add(x: Traced, y: Any) -> Traced:
    """Note it."""
    return _elementwise("add", x, y)


def stacked(*arrays: Any) -> Traced:
    """Note it."""
    traced = next((x for x in arrays if isinstance(x, Traced)), None)
    if traced is None:
        raise Untraceable("a stack of nothing")
    if any(not isinstance(x, Traced) or x.models or x.boolean for x in arrays):
        traced.refuse("a stack of something else than single arrays")
    return _note("stacked", arrays, models=len(arrays))


def where(condition: Traced, x: Any, y: Any) -> Traced:
    """Note it."""
    if not isinstance(condition, Traced) or not condition.boolean:
        raise Untraceable("a condition that is not of the stack")
    return _elementwise("where", condition, x, y)


def sign(x: Traced) -> Traced:
    """Note it."""
    return _elementwise("sign", x)


def minimum(x: Any, y: Any) -> Traced:
    """Note it."""
    return _elementwise("minimum", x, y)


def maximum(x: Any, y: Any) -> Traced:
    """Note it."""
    return _elementwise("maximum", x, y)


def sqrt(x: Traced) -> Traced:
    """Note it."""
    return _elementwise("sqrt", x)


def exp(x: Traced) -> Traced:
    """Note it."""
    return _elementwise("exp", x)


def tanh(x: Traced) -> Traced:
    """Note it."""
    return _elementwise("tanh", x)


def median(stack: Traced) -> Traced:
    """Note it."""
    return _note("median", (stack,), models=0)


def __getattr__(name: str) -> Callable[..., NoReturn]:
    """Return, for every other op, one that refuses; what arrays' side lacks is no op."""
    if name.startswith("_"):  # as imports ask for, which must not load Numba
        raise AttributeError(name)
    from plait.ops import on_cpu

    if not hasattr(on_cpu, name):
        raise AttributeError(name)
    return _refusing("an op that is not fused")
