"""What becomes of one output tensor: merged, copied, or left out; and with which numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from plait.dtypes import DTYPES, dtype_by_name
from plait.errors import Fault
from plait.methods import Method, find_method
from plait.planning.components import Components
from plait.planning.extra import Extras
from plait.planning.parameters import Levels, Missing, effective
from plait.planning.shapes import Shapes
from plait.planning.slots import Slot, Target
from plait.planning.types import Dropped, Explained, Source, Step
from plait.planning.views import View
from plait.recipe import levels_of, rule_text, takes
from plait.recipe.types import Input, Recipe, TensorRule

__all__ = ["Decisions"]


@dataclass
class Decisions:
    """Turns targets into steps for one document, gathering every fault, drop and note on the way."""

    recipe: Recipe
    views: Mapping[str, View]
    """By reference, those that only `copy_from` names included."""
    shapes: Shapes
    components: Components
    extras: Extras
    explain: bool = False
    faults: list[Fault] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    missing: Missing = field(default_factory=Missing)
    used: set[tuple[int, str]] = field(default_factory=set)
    """(model, name as stored) of every input tensor that some step reads, or that `dropped` has."""
    merged_models: set[int] = field(default_factory=set)
    """Models of which some tensor is merged, or copied because a rule or a slice asks for it."""
    partial: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Why -> names, for tensors that only some inputs have."""
    _rules_hit: set[int] = field(default_factory=set)
    _levels: dict[tuple[int, int, int, int], Levels] = field(default_factory=dict)

    def step(self, target: Target) -> Step | None:
        """Return the step for one target, or None when it is dropped or cannot be made."""
        component = self.components.of(target.name, self._shape(target))
        rule = next((rule for rule in self.recipe.tensors if takes(rule, target.name, component)), None)
        if rule is not None and self._is_settled_by(rule, target):
            self._rules_hit.add(id(rule))
            return self._by_rule(target, rule)
        present = [slot for slot in target.slots if slot.there]
        if target.extra:
            present = [slot for slot in present if not self.extras.why_not(slot.view, slot.name)]
            if not present:
                return None  # what is left over is listed with its reason
        if rule is not None:
            self._rules_hit.add(id(rule))
        donor = self.shapes.donor
        if not present and target.name in donor.entries:
            lacking = dict.fromkeys(slot.view.reference for slot in target.slots)
            return self.copy_outside(target.name, donor, f"not in {', '.join(lacking)}")
        return self._from_inputs(target, rule, present) if present else None

    def _shape(self, target: Target) -> tuple[int, ...]:
        slot = next((slot for slot in target.slots if slot.there), None)
        return slot.view.entries[slot.name].shape if slot else ()

    def _is_settled_by(self, rule: TensorRule, target: Target) -> bool:
        """Whether the rule drops or copies; a tensor that its model has not is no mistake where the donor lacks it."""
        if rule.copy_from is None:
            return rule.drop
        return not target.extra or target.name in self.views[str(rule.copy_from)].entries

    def _by_rule(self, target: Target, rule: TensorRule) -> Step | None:
        """Drop or copy as a rule says."""
        if rule.copy_from is None:
            for slot in target.slots:
                self._drop(slot, f"the rule at {rule.where}")
            return None
        view = self.views[str(rule.copy_from)]
        if target.name not in view.entries:
            self.faults.append(Fault(f"{view.reference} has no tensor {target.name!r} to copy.", rule.where))
            return None
        source = view.entries[target.name]
        self._use(source)
        self.merged_models.add(source.model)
        for slot in target.slots:
            self._drop(slot, f"{target.name} is copied from {view.reference} by the rule at {rule.where}")
        return self._copy(target.name, source, f"the rule at {rule.where}")

    def _from_inputs(self, target: Target, rule: TensorRule | None, present: Sequence[Slot]) -> Step | None:
        chosen = next((slot for slot in present if slot.view is target.base), present[0])
        first = chosen.view.entries[chosen.name]
        if not self._kinds_agree(target, first, present):
            return None
        if not DTYPES[first.dtype].is_float:
            return self._same_in_all(target, first, present)
        if len(present) < len(target.slots):
            return self._partial(target, first, present)
        sources = [(slot.view.entries[slot.name], slot.view) for slot in present]
        if not self.shapes.agree(target.name, (first, chosen.view), sources):
            return None
        return self._merge(target, rule, present)

    def copy_outside(self, name: str, view: View, reason: str) -> Step:
        """Copy a tensor that no part of the recipe speaks of."""
        self._use(view.entries[name])
        self.partial[reason].append(name)
        return self._copy(name, view.entries[name], reason)

    def _use(self, source: Source) -> None:
        self.used.add((source.model, source.name))

    def _drop(self, slot: Slot, reason: str) -> None:
        if slot.there and slot.name not in slot.view.tied:  # an embedding that stands for a head has its own place
            source = slot.view.entries[slot.name]
            if (source.model, source.name) not in self.used:
                self._use(source)
                self.dropped.append(Dropped(slot.view.reference, source.name, reason))

    def _kinds_agree(self, target: Target, first: Source, present: Sequence[Slot]) -> bool:
        """Whether all are floats, or none is: numbers and codes cannot be mixed."""
        for slot in present:
            source = slot.view.entries[slot.name]
            if DTYPES[source.dtype].is_float != DTYPES[first.dtype].is_float:
                kinds = f"{DTYPES[first.dtype].name} and, in {slot.view.reference}, {DTYPES[source.dtype].name}"
                self.faults.append(Fault(f"{target.name} is {kinds}; these cannot be merged.", self.recipe.where))
                return False
        return True

    def _same_in_all(self, target: Target, first: Source, present: Sequence[Slot]) -> Step:
        """Copy an integer buffer, to be compared with the others' while it is copied."""
        self._use(first)
        alike = [first]
        for slot in present:
            source = slot.view.entries[slot.name]
            if source is first or source in alike:
                continue
            if source.shape == first.shape and source.dtype == first.dtype:
                self._use(source)
                alike.append(source)
            else:
                self._drop(slot, f"not a float, and of another shape or type than {first.name} of the model copied")
        reason = "not a float; same in all inputs" if len(alike) > 1 else "not a float"
        return Step(target.name, first.dtype, first.shape, "copy", tuple(alike), reason=reason, stage=self._stage)

    def _partial(self, target: Target, first: Source, present: Sequence[Slot]) -> Step:
        has = {slot.view.index for slot in target.slots if slot.there}
        lacking = dict.fromkeys(slot.view.reference for slot in target.slots if slot.view.index not in has)
        reason = f"not in {', '.join(lacking)}"
        self.partial[reason].append(target.name)
        self._use(first)
        for slot in present:
            self._drop(slot, f"{reason}, so {target.name} is copied from one model")
        return self._copy(target.name, first, reason)

    @property
    def _stage(self) -> str:
        return self.recipe.name or ""

    def _copy(self, name: str, source: Source, reason: str) -> Step:
        dtype = self._out_dtype(source)
        if dtype == source.dtype:
            return Step(name, dtype, source.shape, "copy", (source,), reason=reason, stage=self._stage)
        unity = {"scale": (1.0,)}
        return Step(
            name, dtype, source.shape, "merge", (source,), None, "passthrough", unity, reason=reason, stage=self._stage
        )

    def _out_dtype(self, source: Source) -> str:
        wanted = dtype_by_name(self.recipe.out_dtype or self.recipe.dtype or "")
        return wanted.code if wanted and DTYPES[source.dtype].is_float else source.native

    def unused_rules(self) -> list[Fault]:
        """Report `tensors:` rules that no tensor came to."""
        return [
            Fault(f"rule {rule_text(rule)} matches no output tensor that an earlier rule has not taken.", rule.where)
            for rule in self.recipe.tensors
            if id(rule) not in self._rules_hit
        ]

    def _merge(self, target: Target, rule: TensorRule | None, present: Sequence[Slot]) -> Step | None:
        method = find_method(rule.merge_method if rule and rule.merge_method else self.recipe.merge_method)
        slots, base = self._arrange(method, target, present)
        wrong = self._count_fault(method, target, slots, base)
        values, explained = effective(
            method,
            target,
            component=self.components.of(target.name, self._shape(target)),
            shared=self._levels_of(target, rule, None),
            models=[(slot.view.reference, slot.name, self._levels_of(target, rule, slot.given)) for slot in slots],
            missing=self.missing,
            explain=self.explain,
        )
        if wrong is not None:
            self.faults.append(wrong)
            return None
        self.missing.check_together(method, values, target.name)
        sources = tuple(slot.view.entries[slot.name] for slot in slots)
        for source in (*sources, *([base] if base is not None else [])):
            self._use(source)
            self.merged_models.add(source.model)
        for slot in present:
            self._drop(slot, f"{method.name} does not take {slot.view.reference}'s {target.name}")
        first = base or sources[0]
        out = self._out_dtype(first)
        post, told = self._post(target)
        copied = method.name == "passthrough" and values["scale"] == (1.0,) and out == first.dtype
        step = Step(target.name, out, first.shape, "merge", sources, base, method.name, values, post)
        if copied:
            step = Step(target.name, out, first.shape, "copy", sources, reason="passthrough")
        if self.explain:
            explained = (self._choice(method, rule), *explained, *(() if copied else told))
        return replace(step, explained=explained, stage=self._stage)

    def _choice(self, method: Method, rule: TensorRule | None) -> Explained:
        """Say what made the tensor be merged by this method."""
        by_rule = rule is not None and rule.merge_method is not None
        given = f"{rule.where}, tensors {rule_text(rule)}" if rule and by_rule else ""
        return Explained("merge_method", None, method.name, given or f"{self.recipe.merge_method_where}, recipe")

    def _levels_of(self, target: Target, rule: TensorRule | None, given: Input | None) -> Levels:
        key = (id(rule), id(target.module), id(target.slice), id(given))
        if key not in self._levels:
            rules = [rule] if rule else []
            self._levels[key] = levels_of(self.recipe, target.module, target.slice, given, rules)
        return self._levels[key]

    def _arrange(self, method: Method, target: Target, present: Sequence[Slot]) -> tuple[list[Slot], Source | None]:
        """Return the stack's slots in order, and the base that deltas are taken from."""
        slots = list(present)
        at = next((slot for slot in slots if slot.view is target.base), None)
        if method.subtracts(base=True):
            base = at.view.entries[at.name] if at else None
            return [slot for slot in slots if slot is not at], base
        if method.base == "first" and at is not None:
            return [at, *(slot for slot in slots if slot is not at)], None
        if at is not None and at.given is None and not _takes_unlisted_base(method, target, self.recipe):
            slots.remove(at)
        return slots, None

    def _count_fault(self, method: Method, target: Target, slots: Sequence[Slot], base: Source | None) -> Fault | None:
        where = self.recipe.merge_method_where
        if base is None and method.sees.space == "deltas":
            hint = "Name it with `base_model`" + ("." if target.module.whole else " and among each slice's sources.")
            return Fault(f"{method.name} works on differences from a base model; there is none.", where, hint)
        if method.base == "first" and (target.base is None or not slots or slots[0].view is not target.base):
            hint = "Name one of them with `base_model`."
            return Fault(f"{method.name} starts from `base_model`, which must be one of its inputs.", where, hint)
        count, low, high = len(slots), method.min_models, method.max_models
        if low <= count and (high is None or count <= high):
            return None
        kind = " besides the base" if base is not None else ""
        takes = f"exactly {low}" if low == high else f"at least {low}" if count < low else f"at most {high}"
        plural = "" if takes.endswith(" 1") else "s"
        hint = f"Given: {', '.join(slot.view.reference for slot in slots) or 'none'}."
        return Fault(f"{method.name} takes {takes} model{plural}{kind}; there are {count}.", where, hint)

    def _post(self, target: Target) -> tuple[tuple[tuple[str, Mapping[str, Any]], ...], tuple[Explained, ...]]:
        steps: list[tuple[str, Mapping[str, Any]]] = []
        told: list[Explained] = []
        component = self.components.of(target.name, self._shape(target))
        for step in self.recipe.post:
            declared = find_method(step.name, post=True)
            levels: Levels = [(f"post step {step.name}", step.parameters)]
            own = Missing(misfits=self.missing.misfits)
            values, explained = effective(
                declared,
                target,
                component=component,
                shared=levels,
                models=[],
                missing=own,
                explain=self.explain,
            )
            if own.tensors:  # its filters leave this tensor out
                continue
            if declared.position:
                values[declared.position] = target.position
            steps.append((step.name, values))
            told += [replace(one, parameter=f"{step.name}.{one.parameter}") for one in explained]
        return tuple(steps), tuple(told)


def _takes_unlisted_base(method: Method, target: Target, recipe: Recipe) -> bool:
    """Whether a base that only `base_model` names is averaged too, as in mergekit, where it has every number it needs.

    Otherwise it only gives what the others lack: config, tokenizer, and tensors such as heads.
    """
    if method.max_models is not None and len(target.slots) > method.max_models:
        return False
    required = [name for name, p in method.parameters.items() if p.per_model and name not in method.defaults]
    levels = (target.slice.parameters, target.module.parameters, recipe.parameters)
    return all(any(name in level for level in levels) for name in required)
