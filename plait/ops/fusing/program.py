"""From a traced graph to a program: the lines of a loop's body, and the numbers that it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from plait.ops.rng import Rng, keep_limits
from plait.ops.trace import Traced, Untraceable

__all__ = ["MOST", "Program", "merging", "summing"]

MOST = 16
"""Models that a loop is written for: it names each of them."""
_TWO = {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "and": "&", "or": "|"}
_COMPARED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


@dataclass(frozen=True)
class Program:
    """What a loop does, apart from the numbers (`lines`, `results`), and the numbers.

    Attributes:
        models: k.
        lines: assignments to scalars, of `x0` … (the models' entries), `n0` … (numbers) and random bits.
        results: the scalars that come out: the merged entry, or what is to be summed.
        numbers: float32, what `n0` … stand for.
        keys: uint64 `[m]`, of the random drops.
        limits: int64 `[m]`, in [1, 2^32]: an entry is kept when its 32 bits lie below.
    """

    models: int
    lines: tuple[str, ...]
    results: tuple[str, ...]
    numbers: npt.NDArray[np.float32]
    keys: npt.NDArray[np.uint64]
    limits: npt.NDArray[np.int64]
    kernels: dict[Any, Callable[..., Any]] = field(default_factory=dict, compare=False)
    """What was compiled for it, by element type and whether there is a base."""


def merging(run: Callable[[Any], Any], models: int) -> Program | None:
    """Return what `run`, a method with all its arguments but the stack, does; None where it cannot be written as a loop.

    A generator must have been given to `run` at the tensor's first element. What makes `run` raise is left for
    the tiles to meet again.
    """
    return _program(run, models, single=True)


def summing(of: Callable[[Any], Any], models: int) -> Program | None:
    """Return how what `of` makes of the stack is made; None where it cannot be written so.

    It makes a stack, a single array, or a tuple of such; the program's results are their entries, in order. `start` is the element that the generator given to `of` is at.
    """
    return _program(of, models, single=False)


def _program(run: Callable[[Any], Any], models: int, *, single: bool) -> Program | None:
    if models > MOST:
        return None
    stack = Traced(models=models)
    writer = _Writer()
    try:
        made = run(stack)
        parts = made if type(made) is tuple else (made,)
        if any(type(part) is not Traced or (single and (part.models or part.boolean)) for part in parts):
            return None
        results = tuple(writer.result(part, i) for part in parts for i in range(part.models or 1))
    except Exception:  # noqa: BLE001 - a user's method may raise anything when it is not given an array
        return None
    return None if stack.troubles else writer.program(models, results)


class _Writer:
    """Writes every value once, model by model."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.numbers: list[np.float32] = []
        self.drops: list[tuple[np.uint64, np.int64]] = []
        self._known: dict[tuple[int, int], str] = {}
        self._slots: dict[tuple[bytes, int], str] = {}

    def program(self, models: int, results: tuple[str, ...]) -> Program:
        """Return what was written."""
        keys, limits = ([pair[i] for pair in self.drops] for i in (0, 1))
        numbers = np.array(self.numbers, np.float32)
        return Program(
            models, tuple(self.lines), results, numbers, np.array(keys, np.uint64), np.array(limits, np.int64)
        )

    def result(self, node: Traced, i: int) -> str:
        """Name a scalar that comes out: what is true or false counts as 1 or 0."""
        value = self.value(node, i)
        return self._assign(f"one if {value} else zero") if node.boolean else value

    def value(self, node: Traced, i: int) -> str:
        """Name the scalar that holds the node's entry of model i (of a single array, or a stack of one: any i)."""
        place = id(node), i if node.models > 1 else 0
        if place not in self._known:
            self._known[place] = self._write(node, place[1])
        return self._known[place]

    def _write(self, node: Traced, i: int) -> str:
        special = getattr(self, f"_{node.op}", None)
        if special is not None:
            return str(special(node, i))
        operands = [self._operand(operand, i) for operand in node.arguments]
        return self._assign(_expression(node.op, operands))

    def _operand(self, operand: Any, i: int) -> str:
        if isinstance(operand, Traced):
            return self.value(operand, i)
        return self._number(operand, i)

    def _number(self, values: Any, i: int) -> str:
        """Name model i's of these numbers.

        Only numbers that are alike for all models share a name: what is written is to depend on the method, and not on
        which of its numbers happen to be equal.
        """
        each = np.asarray(values, np.float32).reshape(-1)
        place = each.tobytes(), i if each.size > 1 else 0
        if place not in self._slots:
            self._slots[place] = f"n{len(self.numbers)}"
            self.numbers.append(each[place[1]])
        return self._slots[place]

    def _assign(self, expression: str) -> str:
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        return name

    def _input(self, _node: Traced, i: int) -> str:
        return f"x{i}"

    def _stacked(self, node: Traced, i: int) -> str:
        return self._operand(node.arguments[i], 0)

    def _item(self, node: Traced, _i: int) -> str:
        return self.value(*node.arguments)

    def _trim(self, node: Traced, i: int) -> str:
        x, least = (self._operand(operand, i) for operand in node.arguments)
        return self._assign(f"{x} if abs({x}) >= {least} else zero")

    def _scale(self, node: Traced, i: int) -> str:
        x, factor = (self._operand(operand, i) for operand in node.arguments)
        return self._assign(f"{factor} * {x}")

    def _drop(self, node: Traced, i: int) -> str:
        stack, density, rng = node.arguments
        if not isinstance(rng, Rng) or rng.start != 0 or rng.keys.size != stack.models:
            raise Untraceable("a generator for another tile")
        limit = keep_limits(density, stack.models)[i]
        x = self.value(stack, i)
        if limit == 0:
            return self._assign("zero")
        self.drops.append((rng.keys[i], limit))
        return self._assign(f"{x} if random({len(self.drops) - 1}) else zero")

    def _votes(self, stack: Traced, weight: Any) -> list[str]:
        """Multiply entries by weights: for an election and what follows it, once."""
        votes = []
        for i in range(stack.models):
            product = f"{self._number(weight, i)} * {self.value(stack, i)}"
            place = hash(("product", product)), -1
            if place not in self._known:
                self._known[place] = self._assign(product)
            votes.append(self._known[place])
        return votes

    def _weighted_sum(self, node: Traced, _i: int) -> str:
        return self._total(self._votes(*node.arguments))

    def _total(self, terms: list[str]) -> str:
        total = terms[0]
        for term in terms[1:]:
            total = self._assign(f"{total} + {term}")
        return total

    def _elect(self, node: Traced, _i: int) -> str:
        return self._assign(f"one if {self._total(self._votes(*node.arguments))} >= zero else -one")

    def _agreeing(self, node: Traced) -> tuple[str, str]:
        stack, elected, weight = node.arguments
        sign = self.value(elected, 0)
        votes, parts, shares = self._votes(stack, weight), [], []
        for i, vote in enumerate(votes):
            agrees = self._assign(f"{vote} * {sign} > zero")
            parts.append(self._assign(f"{vote} if {agrees} else zero"))
            shares.append(self._assign(f"{self._number(weight, i)} if {agrees} else zero"))
        return self._total(parts), self._total(shares)

    def _agreeing_sum(self, node: Traced, _i: int) -> str:
        return self._agreeing(node)[0]

    def _agreeing_mean(self, node: Traced, _i: int) -> str:
        total, share = self._agreeing(node)
        mean = self._assign(f"{total} / {share}")
        return self._assign(f"{mean} if {share} != zero else zero")

    def _largest(self, node: Traced, _i: int) -> str:
        (stack,) = node.arguments
        best = self._assign(f"{self.value(stack, 0)} + zero")
        for i in range(1, stack.models):
            x = self.value(stack, i)
            size = self._assign(f"abs({x})")
            best = self._assign(f"{x} if ({size} > {best}) & ({size} >= -{best}) else {best}")
        return best

    def _median(self, node: Traced, _i: int) -> str:
        (stack,) = node.arguments
        ordered = [self.value(stack, i) for i in range(stack.models)]
        for end in range(len(ordered) - 1, 0, -1):
            for i in range(end):
                x, y = ordered[i : i + 2]
                ordered[i : i + 2] = self._assign(f"min({x}, {y})"), self._assign(f"max({x}, {y})")
        lower, upper = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
        return self._assign(f"{lower} + zero" if lower == upper else f"({lower} + {upper}) * f32(0.5) + zero")


def _expression(op: str, operands: list[str]) -> str:
    """Write an elementwise op. What the ops do with zeros of either sign is done here, too."""
    if op in _TWO or op in _COMPARED:
        return f"{operands[0]} {(_TWO | _COMPARED)[op]} {operands[1]}"
    if op == "clamp":
        return "min(max({}, {}), {})".format(*operands)
    if op == "where":
        return "{1} if {0} else {2}".format(*operands)
    texts = {
        "abs": "abs({})",
        "neg": "-{}",
        "invert": "not {}",
        "minimum": "min({}, {}) + zero",
        "maximum": "max({}, {}) + zero",
        "sign": "(one if {0} > zero else zero) - (one if {0} < zero else zero)",
        "sqrt": "np.sqrt({})",
        "exp": "f32(exp_of(f64({})))",
        "tanh": "f32(tanh_of(f64({})))",
    }
    return texts[op].format(*operands)
