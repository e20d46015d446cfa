"""Which tensor of which model goes into which output tensor: the layers and slices of one document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from plait.errors import Fault
from plait.planning.views import View
from plait.recipe.types import Input, Module, Slice
from plait.structure import Stack, gradient_position, locate, main_stacks

__all__ = ["Slot", "Target", "layer_faults", "stacks_for_slices", "targets"]


@dataclass(frozen=True, slots=True)
class Slot:
    """One input of one output tensor: the model, its own name for the tensor, and the recipe's entry for it."""

    view: View
    name: str
    given: Input | None
    """None for a base that the recipe names only as `base_model`."""

    @property
    def there(self) -> bool:
        """Whether the model has that tensor."""
        return self.name in self.view.entries


@dataclass(frozen=True, slots=True)
class Target:
    """One output tensor before anything is decided about it."""

    name: str
    t: float
    """Where gradients are read, in [0, 1]."""
    slots: tuple[Slot, ...]
    base: View | None
    slice: Slice
    module: Module


Pair = tuple[Input | None, View]


def targets(
    module: Module, pairs: Sequence[Sequence[Pair]], bases: Sequence[View | None], names: Sequence[str], stack: Stack | None
) -> Iterator[Target]:
    """Yield the module's output tensors. `pairs` has, slice by slice, the inputs and their views."""
    if module.whole:
        stacks = pairs[0][0][1].stacks
        for name in names:
            slots = tuple(Slot(view, name, given) for given, view in pairs[0])
            yield Target(name, gradient_position(name, stacks), slots, bases[0], module.slices[0], module)
        return
    outside = [name for name in names if stack is None or (at := locate(name)) is None or at.prefix != stack.prefix]
    stacks = pairs[0][0][1].stacks
    for name in outside:
        t = gradient_position(name, [s for s in stacks if stack is None or s.prefix != stack.prefix])
        which = 0 if t == 0 else -1
        slots = tuple(Slot(view, name, given) for given, view in pairs[which])
        yield Target(name, t, slots, bases[which], module.slices[which], module)
    if stack is not None:
        yield from _layers(module, pairs, bases, stack)


def _layers(
    module: Module, pairs: Sequence[Sequence[Pair]], bases: Sequence[View | None], stack: Stack
) -> Iterator[Target]:
    out = 0
    for part, inputs, base in zip(module.slices, pairs, bases, strict=True):
        begins = [given.layer_range[0] if given and given.layer_range else 0 for given, _ in inputs]
        first = part.sources[0].layer_range or (0, stack.length)
        length = first[1] - first[0]
        for offset in range(length):
            t = offset / (length - 1) if length > 1 else 1.0
            for suffix in _suffixes(inputs[0][1], stack.prefix, begins[0] + offset):
                slots = tuple(
                    Slot(view, f"{stack.prefix}.{begin + offset}.{suffix}", given)
                    for (given, view), begin in zip(inputs, begins, strict=True)
                )
                yield Target(f"{stack.prefix}.{out}.{suffix}", t, slots, base, part, module)
            out += 1


def _suffixes(view: View, prefix: str, index: int) -> list[str]:
    start = f"{prefix}.{index}."
    return [name[len(start) :] for name in view.entries if name.startswith(start)]


def layer_faults(module: Module, pairs: Sequence[Sequence[Pair]], stack: Stack | None) -> list[Fault]:
    """Say which layer ranges lie outside their model, and which models differ in depth."""
    if module.whole:
        return _depth_faults(pairs[0])
    if stack is None:
        return [Fault("slices need a stack of layers; none, or more than one, was found.", module.where)]
    faults = []
    for given, view in (pair for inputs in pairs for pair in inputs):
        own = next((s for s in view.stacks if s.prefix == stack.prefix), None)
        if given is None or given.layer_range is None:
            continue
        if own is None or given.layer_range[1] > own.length:
            message = f"layer_range {list(given.layer_range)} is outside {view.reference}"
            has = f", which has {own.length} layers (0 to {own.length - 1})" if own else f", which has no {stack.prefix}"
            faults.append(Fault(f"{message}{has}.", given.where))
    return faults or _kind_faults(module, pairs, stack)


def _kind_faults(module: Module, pairs: Sequence[Sequence[Pair]], stack: Stack) -> list[Fault]:
    """Refuse to merge layers of different kinds (attention with a state-space layer)."""
    faults = []
    for part, inputs in zip(module.slices, pairs, strict=True):
        ranges = [given.layer_range for given, _ in inputs if given and given.layer_range]
        for offset in range(ranges[0][1] - ranges[0][0] if len(inputs) > 1 and len(ranges) == len(inputs) else 0):
            kinds = [
                frozenset(_suffixes(view, stack.prefix, span[0] + offset))
                for (_, view), span in zip(inputs, ranges, strict=True)
            ]
            if not any(a <= b or b <= a for a in kinds[:1] for b in kinds[1:]):
                layers = " and ".join(
                    f"layer {span[0] + offset} of {view.reference}"
                    for (_, view), span in zip(inputs, ranges, strict=True)
                )
                faults.append(Fault(f"{layers} are of different kinds; they share no layout.", part.where))
    return faults


def _depth_faults(inputs: Sequence[Pair]) -> list[Fault]:
    first = inputs[0][1]
    lengths = {stack.prefix: stack.length for stack in first.stacks}
    faults = []
    for given, view in inputs[1:]:
        for stack in view.stacks:
            expected = lengths.get(stack.prefix, stack.length)
            if stack.length != expected:
                message = f"{view.reference} has {stack.length} layers under {stack.prefix}, {first.reference} has {expected}."
                hint = "Models of different depth are joined with `slices`."
                faults.append(Fault(message, given.where if given else None, hint))
    return faults


def stacks_for_slices(view: View) -> tuple[Stack, ...]:
    """Return the stack that slices speak of; none, or several, when the checkpoint does not say which."""
    return main_stacks(view.stacks, view.config)
