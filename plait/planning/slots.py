"""Which tensor of which model goes into which output tensor: the layers and slices of one document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from plait.errors import Fault, Where
from plait.planning.extra import modules_of_layer
from plait.planning.views import View
from plait.recipe.types import Input, Module, Slice
from plait.structure import Stack, gradient_position, locate, main_stacks
from plait.structure.configs import layer_counts, stated

__all__ = ["Laid", "Pair", "Slot", "Target", "layer_faults", "mixed_layer_kinds", "stack_for_slices", "targets"]

_EXTRA_LAYERS = ("num_nextn_predict_layers", "num_mtp_layers")


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
    layers: int | None = None
    """How many layers gradients run over here; None outside the layers."""
    position: float | None = None
    """Where its layer lies among all layers of the output, from 0 to 1; None outside the layers."""
    extra: bool = False
    """Whether the model that the output follows has no such tensor."""


Pair = tuple[Input | None, View]


@dataclass(frozen=True, slots=True)
class Laid:
    """One module with its models: what `targets` and the checks go by."""

    module: Module
    pairs: tuple[tuple[Pair, ...], ...]
    """Slice by slice, the inputs and their views."""
    bases: tuple[View | None, ...]
    """Slice by slice."""
    stack: Stack | None
    """The layers that slices speak of; None for a module written with `models`."""

    @property
    def parts(self) -> Iterator[tuple[Slice, tuple[Pair, ...], View | None]]:
        """The slices with their inputs and bases."""
        return zip(self.module.slices, self.pairs, self.bases, strict=True)


def targets(laid: Laid, names: Sequence[str], extra: Sequence[str] = ()) -> Iterator[Target]:
    """Yield the module's output tensors; `names` are the donor's that belong to it, `extra` those it has not.

    Within the layers that slices speak of, every layer has what the first model of its slice has there.
    """
    sliced = laid.stack.prefix if laid.stack else None
    added = {name for name in extra if (at := locate(name)) is None or at.prefix != sliced}
    for target in _targets(laid, [*names, *extra]):
        yield replace(target, extra=True) if target.name in added else target


def _targets(laid: Laid, names: Sequence[str]) -> Iterator[Target]:
    stacks = laid.pairs[0][0][1].stacks
    if laid.stack is None:
        for name in names:
            at = locate(name)
            own = next((stack.length for stack in stacks if at is not None and stack.prefix == at.prefix), None)
            t = gradient_position(name, stacks)
            yield replace(_outside(laid, name, t, 0), layers=own, position=None if own is None else t)
        return
    others = [stack for stack in stacks if stack.prefix != laid.stack.prefix]
    for name in names:
        at = locate(name)
        if at is None or at.prefix != laid.stack.prefix:
            t = gradient_position(name, others)
            # What comes before the layers is the first slice's, what comes after them the last's.
            inside = at is not None and any(stack.prefix == at.prefix for stack in others)
            yield replace(_outside(laid, name, t, 0 if t == 0 else -1), position=t if inside else None)
    yield from _layers(laid, laid.stack)


def _outside(laid: Laid, name: str, t: float, which: int) -> Target:
    slots = tuple(Slot(view, name, given) for given, view in laid.pairs[which])
    return Target(name, t, slots, laid.bases[which], laid.module.slices[which], laid.module)


def _layers(laid: Laid, stack: Stack) -> Iterator[Target]:
    out, last = 0, sum(_length(part, stack) for part, _, _ in laid.parts) - 1
    for part, inputs, base in laid.parts:
        begins = [given.layer_range[0] if given and given.layer_range else 0 for given, _ in inputs]
        length = _length(part, stack)
        for offset in range(length):
            t = offset / (length - 1) if length > 1 else 1.0
            for suffix in inputs[0][1].layers.get((stack.prefix, begins[0] + offset), ()):
                slots = tuple(
                    Slot(view, _name(stack.prefix, begin + offset, suffix), given)
                    for (given, view), begin in zip(inputs, begins, strict=True)
                )
                position = out / last if last else 1.0
                yield Target(_name(stack.prefix, out, suffix), t, slots, base, part, laid.module, length, position)
            out += 1


def _length(part: Slice, stack: Stack) -> int:
    first, last = part.sources[0].layer_range or (0, stack.length)
    return last - first


def _name(prefix: str, index: int, suffix: str) -> str:
    return ".".join(part for part in (prefix, str(index), suffix) if part)


def layer_faults(laid: Laid, donor: View) -> list[Fault]:
    """Say which layer ranges lie outside their model, which layers do not fit, and which models differ in depth."""
    if laid.stack is None:
        return _depth_faults(laid.pairs[0], donor) if laid.module.whole else []
    faults = []
    for given, view in (pair for inputs in laid.pairs for pair in inputs):
        own = view.stack(laid.stack.prefix)
        if given is None or given.layer_range is None:
            continue
        if own is None or given.layer_range[1] > own.length:
            message = f"layer_range {list(given.layer_range)} is outside {view.reference}"
            has = (
                f"which has {own.length} layers (0 to {own.length - 1})" if own else f"which has no {laid.stack.prefix}"
            )
            faults.append(Fault(f"{message}, {has}.", given.where))
    return faults or _kind_faults(laid, laid.stack)


def _together(laid: Laid) -> Iterator[tuple[Slice, list[tuple[View, int]]]]:
    """Yield, for every output layer of several models, the slice and (model, its layer)."""
    for part, inputs, _ in laid.parts:
        spans = [(view, given.layer_range) for given, view in inputs if given and given.layer_range]
        if len(spans) > 1:
            for offset in range(spans[0][1][1] - spans[0][1][0]):
                yield part, [(view, span[0] + offset) for view, span in spans]


def _kind_faults(laid: Laid, stack: Stack) -> list[Fault]:
    """Refuse to merge layers of different kinds (attention with a state-space layer)."""
    faults = []
    for part, layers in _together(laid):
        kinds = [modules_of_layer(view, stack.prefix, index) for view, index in layers]
        odd = next((i for i, kind in enumerate(kinds) if not (kind <= kinds[0] or kinds[0] <= kind)), None)
        if odd is not None:
            told = f"{_layer(*layers[0])} and {_layer(*layers[odd])}"
            only = f"the first has {min(kinds[0] - kinds[odd])}, the second {min(kinds[odd] - kinds[0])}"
            faults.append(Fault(f"{told} are of different kinds: {only}.", part.where))
    return faults


def mixed_layer_kinds(laid: Laid) -> list[Fault]:
    """Warn of layers merged together that the configs say are of different kinds, though their tensors agree."""
    found: dict[tuple[str, Where], list[str]] = {}
    for part, layers in _together(laid):
        kinds = [_stated_kind(view, index) for view, index in layers]
        for (view, index), kind in zip(layers[1:], kinds[1:], strict=True):
            if kind and kinds[0] and kind != kinds[0]:
                text = f"{_layer(*layers[0])} ({kinds[0]}) with {_layer(view, index)} ({kind})"
                found.setdefault((view.reference, part.where), []).append(text)
    return [
        Fault(
            f"Layers of different kinds are merged: {texts[0]}{f' and {len(texts) - 1} more' if texts[1:] else ''}.",
            where,
        )
        for (_, where), texts in found.items()
    ]


def _layer(view: View, index: int) -> str:
    return f"layer {index} of {view.reference}"


def _stated_kind(view: View, index: int) -> str | None:
    for kinds in stated(view.config, "layer_types"):
        if isinstance(kinds, list) and index < len(kinds):
            return str(kinds[index])
    return None


def _depth_faults(inputs: Sequence[Pair], donor: View) -> list[Fault]:
    faults = []
    for given, view in inputs:
        for stack in view.stacks:
            own = donor.stack(stack.prefix)
            if own is None or own.length == stack.length or _is_extra(donor, own, view, stack):
                continue
            message = (
                f"{view.reference} has {stack.length} layers under {stack.prefix}, {donor.reference} has {own.length}."
            )
            hint = "Models of different depth are joined with `slices`."
            faults.append(Fault(message, given.where if given else None, hint))
    return faults


def _is_extra(one: View, stack: Stack, two: View, other: Stack) -> bool:
    """Whether the longer stack only adds the layers for predicting further tokens that its config states."""
    longer = one if stack.length > other.length else two
    more = abs(stack.length - other.length)
    return any(more in stated(longer.config, key) for key in _EXTRA_LAYERS)


def stack_for_slices(view: View, module: Module) -> tuple[Stack | None, list[Fault]]:
    """Return the stack that a module's slices speak of, or a fault when the checkpoint does not say which."""
    if module.whole:
        return None, []
    inside = [stack for stack in view.stacks if not module.name or module.name in stack.prefix.split(".")]
    found = main_stacks(inside, view.config) or main_stacks(inside, None)[: 2 if module.name else 0]
    if len(found) == 1:
        return found[0], []
    has = " and ".join(f"{stack.prefix} ({stack.length} layers)" for stack in found or inside) or "no layers"
    stated_counts = sorted({str(one.count) for one in layer_counts(view.config)}) if not found else []
    says = f", while its config states {' and '.join(stated_counts)}" if stated_counts else ""
    message = f"slices: {view.reference} has {has}{says}, so which layers are meant is not clear."
    return None, [Fault(message, module.where, "Use `models`, or name the parts under `modules`.")]
