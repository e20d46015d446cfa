"""What `scope: model` has measured over many tensors at once: which ones, in which order, with which numbers."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from plait.engine.prepare import GRAM, Shared, columns, known_of
from plait.engine.tiles import method_of
from plait.methods.measures import Gram, Measure
from plait.planning.totals import measuring
from plait.planning.types import Plan, Step

__all__ = ["Together", "rounds"]


@dataclass(frozen=True)
class Together:
    """Steps that one measure sees, and the argument of their method that it is for (a span method's: `GRAM`)."""

    argument: str
    steps: tuple[Step, ...]

    def measure(self, shared: Shared) -> Measure:
        """Make the measure; `shared` has what was measured in earlier rounds."""
        first = self.steps[0]
        if self.argument == GRAM:
            return Gram(len(first.sources))
        made = method_of(first).measured[self.argument].make
        return made(columns(known_of(first, shared)), len(first.sources), sum(step.size for step in self.steps))


def rounds(plan: Plan, shared: Shared) -> Iterator[list[Together]]:
    """Yield, round by round, what can be measured once all earlier rounds' results are in `shared`.

    Stage by stage, for a stage is measured on what earlier ones make; and within one in the rounds of the methods, for a
    measure may use what comes before it. What is measured tensor by tensor is among it only where a measure over the
    whole model comes after it.
    """
    order = {stage.name or "": number for number, stage in enumerate(plan.stages)}
    by_stage: dict[int, list[tuple[Step, tuple[tuple[str, ...], ...]]]] = {}
    for step in (*plan.stage_steps, *plan.steps):
        arguments = _arguments(step)
        if arguments:
            by_stage.setdefault(order.get(step.stage, len(order)), []).append((step, arguments))
    for _, steps in sorted(by_stage.items()):
        for number in range(max(len(arguments) for _, arguments in steps)):
            groups: dict[tuple[str, Hashable], list[Step]] = {}
            for step, arguments in steps:
                for argument in arguments[number] if number < len(arguments) else ():
                    groups.setdefault((argument, _key(step, argument, shared)), []).append(step)
            yield [Together(argument, tuple(members)) for (argument, _), members in groups.items()]


def _arguments(step: Step) -> tuple[tuple[str, ...], ...]:
    """What must be measured before any tensor is made, by rounds: up to the last that is over the whole model and needed."""
    if step.action != "merge" or step.parameters.get("scope") != "model" or step.size == 0:
        return ()
    method = method_of(step)
    if method.locality == "span":
        return ((GRAM,),)
    needed = measuring(method, step.parameters, len(step.sources), step.size)
    names = list(method.measured)
    while names and not (method.measured[names[-1]].scoped and needed[names[-1]]):
        names.pop()
    return tuple(tuple(name for name in one if name in names) for one in method.rounds)


def _key(step: Step, argument: str, shared: Shared) -> Hashable:
    """Tell apart steps that are not measured together for this argument."""
    method = method_of(step)
    inputs = [source.model for source in step.sources], step.base.model if step.base is not None else None
    if argument != GRAM and not method.measured[argument].scoped:
        return step
    return method.name, _frozen(inputs), _frozen(_deciding(step, argument, shared))


def _deciding(step: Step, argument: str, shared: Shared) -> Any:
    """What the result depends on, besides the tensors: as the measure says, or all that it is given to know."""
    method, known = method_of(step), known_of(step, shared)
    if argument == GRAM:
        return known
    measured = method.measured[argument]
    if measured.depends is not None:
        return [measured, measured.depends(columns(known))]
    apart = {name for name, one in method.measured.items() if not one.scoped}  # each tensor has its own
    return [measured, {name: value for name, value in known.items() if name not in apart}]


def _frozen(value: Any) -> Hashable:
    """Make a value that can be looked up; arrays by their numbers."""
    if isinstance(value, np.ndarray):
        return value.shape, tuple(value.reshape(-1).tolist())
    if isinstance(value, Mapping):
        return tuple((name, _frozen(one)) for name, one in sorted(value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(one) for one in value)
    return value  # type: ignore[no-any-return]
