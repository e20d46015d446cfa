"""What a measure looks at: a function of the stack, applied tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from plait.methods.vocabulary import Array
from plait.ops import Rng
from plait.ops.fusing import Grid, Program, rows_of_grid, summing
from plait.ops.trace import Traced

__all__ = ["Of", "Seen", "beside", "one_each", "reading"]

Of: TypeAlias = Callable[[Array, Mapping[str, Any], Any], Array]
"""`of(stack, p, rng)` -> a stack `[k, …]`, or one array `[…]`; `p` has the parameters and what was measured before."""


def beside(parameters: Mapping[str, Any], stack: Array) -> dict[str, Any]:
    """Shape numbers to go with a stack: `[k, 1]` becomes `[k, 1, …]`, in the stack's element type and where it lives.

    A recipe's numbers reach the method itself in that type, too, so that what is measured is what the method does.
    """
    return {name: _beside(value, stack) for name, value in parameters.items()}


def _beside(value: Any, stack: Array) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if isinstance(stack, Traced):  # which stands for float32 entries
        return value.astype(np.float32)
    shaped = value.reshape(*value.shape[:-1], *[1] * (stack.ndim - 1))
    if isinstance(stack, np.ndarray):
        return shaped.astype(stack.dtype)
    import torch  # late: torch is an extra

    return torch.as_tensor(np.ascontiguousarray(shaped), dtype=stack.dtype, device=stack.device)


@dataclass
class Seen:
    """A function of the stack with a tensor's numbers, which have a trailing axis of length one (`[k, 1]`)."""

    of: Of
    parameters: Mapping[str, Any]
    _shaped: dict[Any, dict[str, Any]] = field(default_factory=dict)
    _programs: dict[int, Program | None] = field(default_factory=dict)
    """By k."""

    def with_numbers(self, parameters: Mapping[str, Any]) -> Seen:
        """Return the same function with another tensor's numbers; itself, with all that it knows, where they are its own."""
        return self if _alike(self.parameters, parameters) else Seen(self.of, parameters)

    def rows(self, stack: Array, rng: Any) -> Array:
        """Return what is looked at as `[r, …]`: r is k, or 1 where `of` returns one array; a switch counts as 0 or 1."""
        stack = stack if stack.ndim > 1 else stack.reshape(-1, 1)
        kind = stack.ndim, str(stack.dtype), str(getattr(stack, "device", ""))
        if kind not in self._shaped:
            self._shaped[kind] = beside(self.parameters, stack)
        seen = self.of(stack, self._shaped[kind], rng)
        seen = seen if seen.ndim == stack.ndim else seen.reshape(1, *seen.shape)
        if "bool" in str(seen.dtype):
            seen = seen.astype(stack.dtype) if isinstance(stack, np.ndarray) else seen.to(stack.dtype)
        return seen

    def program(self, k: int, rng: Any) -> Program | None:
        """Return what is looked at as a loop over k models' entries, or None where it cannot be written so."""
        if k not in self._programs:
            first = rng and rng.at(0)
            self._programs[k] = summing(lambda stack: self.of(stack, beside(self.parameters, stack), first), k)
        return self._programs[k]

    def in_one_call(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> Array | None:
        """Return `rows` of a batch's raw elements, `[r, n]`, where that can be written as a loop; else None."""
        program = self.program(len(grid) - has_base, rng)
        return None if program is None else rows_of_grid(program, grid, code, start, has_base=has_base)

    def count(self, k: int) -> int:
        """Return r, as the loop tells, or else one entry of zeros a model."""
        rng = Rng(np.zeros(k, np.uint64))
        program = summing(lambda stack: self.of(stack, beside(self.parameters, stack), rng), k)
        if program is not None:
            if not len(program.keys):  # else it is for this generator
                self._programs[k] = program
            return len(program.results)
        with np.errstate(all="ignore"):
            return len(self.rows(np.zeros((k, 1, 1), np.float32), rng))


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and one.tobytes() == other.tobytes()
    return one is other or (type(one) is type(other) and one == other and not isinstance(one, np.ndarray))


def one_each(values: Any, rows: int) -> np.ndarray[Any, Any]:
    """Return numbers `[rows]`, given one for all or one for each.

    >>> one_each(0.5, 3)
    array([0.5, 0.5, 0.5])
    """
    each = np.asarray(values, np.float64).reshape(-1)
    if len(each) not in {1, rows}:
        raise ValueError(f"one number, or one for each of the {rows} rows measured, not {len(each)}")
    return np.array(np.broadcast_to(each, (rows,)))


def reading(names: tuple[str, ...] | None) -> Callable[[Mapping[str, Any]], Any] | None:
    """Return what `Measured.depends` is for a measure that looks up these names; None: it may look up any."""
    return None if names is None else lambda parameters: [parameters[name] for name in names]
