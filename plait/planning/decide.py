"""What becomes of one output tensor: merged, copied, or left out; and with which numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from plait.dtypes import DTYPES, dtype_by_name
from plait.errors import Fault
from plait.methods import Method, find_method
from plait.planning.parameters import Levels, Missing, effective
from plait.planning.slots import Slot, Target
from plait.planning.types import Dropped, Source, Step
from plait.planning.views import View
from plait.recipe.types import Recipe, TensorRule

__all__ = ["Decisions"]


@dataclass
class Decisions:
    """Turns targets into steps for one document, gathering every fault, drop and note on the way."""

    recipe: Recipe
    base: View | None
    extra: Mapping[str, View]
    """Models that only `copy_from` names, by reference."""
    explain: bool = False
    faults: list[Fault] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    missing: Missing = field(default_factory=Missing)
    used: set[tuple[int, str]] = field(default_factory=set)
    """(model, name) of every input tensor that some step reads or some rule drops."""
    merged_models: set[int] = field(default_factory=set)
    partial: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Why -> names, for tensors that only some inputs have."""
    _shape_faults: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    _rules_hit: set[int] = field(default_factory=set)

    def step(self, target: Target) -> Step | None:
        """Return the step for one target, or None when it is dropped or cannot be made."""
        rule = next((rule for rule in self.recipe.tensors if fnmatchcase(target.name, rule.match)), None)
        if rule is not None:
            self._rules_hit.add(id(rule))
        if rule is not None and rule.drop:
            for slot in target.slots:
                self._drop(slot, f"the rule at {rule.where}")
            return None
        if rule is not None and rule.copy_from is not None:
            return self._copy_rule(target, rule)
        present = [slot for slot in target.slots if slot.there]
        if not present:
            return None
        for slot in present:
            self.used.add((slot.view.index, slot.view.entries[slot.name].name))
        first = self._first(target, present)
        if not DTYPES[first.dtype].is_float:
            return self._same_in_all(target, first, present)
        if len(present) < len(target.slots):
            return self._partial(target, first, present)
        if not self._shapes_agree(target, first, present):
            return None
        return self._merge(target, rule, present)

    def _first(self, target: Target, present: Sequence[Slot]) -> Source:
        chosen = next((slot for slot in present if slot.view is target.base), present[0])
        return chosen.view.entries[chosen.name]

    def _drop(self, slot: Slot, reason: str) -> None:
        if slot.there:
            self.used.add((slot.view.index, slot.view.entries[slot.name].name))
            self.dropped.append(Dropped(slot.view.reference, slot.name, reason))

    def _copy_rule(self, target: Target, rule: TensorRule) -> Step | None:
        view = self.extra.get(str(rule.copy_from))
        if view is None:
            return None
        if target.name not in view.entries:
            self.faults.append(Fault(f"{view.reference} has no tensor {target.name!r} to copy.", rule.where))
            return None
        source = view.entries[target.name]
        self.used.add((view.index, source.name))
        for slot in target.slots:
            if slot.view.index != view.index:
                self._drop(slot, f"{target.name} is copied from {view.reference} by the rule at {rule.where}")
        return self._copy(target.name, source, f"the rule at {rule.where}")

    def _same_in_all(self, target: Target, first: Source, present: Sequence[Slot]) -> Step:
        others = tuple(s for slot in present if (s := slot.view.entries[slot.name]) is not first and s != first)
        alike = tuple(s for s in others if s.shape == first.shape and s.dtype == first.dtype)
        return Step(target.name, first.dtype, first.shape, "copy", (first, *alike), reason="not a float; same in all inputs")

    def _partial(self, target: Target, first: Source, present: Sequence[Slot]) -> Step:
        has = {slot.view.index for slot in present}
        lacking = dict.fromkeys(slot.view.reference for slot in target.slots if slot.view.index not in has)
        reason = f"not in {', '.join(lacking)}"
        self.partial[reason].append(target.name)
        return self._copy(target.name, first, reason)

    def _copy(self, name: str, source: Source, reason: str) -> Step:
        dtype = self._out_dtype(source)
        if dtype == source.dtype:
            return Step(name, dtype, source.shape, "copy", (source,), reason=reason)
        unity = {"scale": (1.0,)}
        return Step(name, dtype, source.shape, "merge", (source,), None, "passthrough", unity, reason=reason)

    def _out_dtype(self, source: Source) -> str:
        wanted = dtype_by_name(self.recipe.out_dtype or self.recipe.dtype or "")
        return wanted.code if wanted and DTYPES[source.dtype].is_float else source.dtype

    def _shapes_agree(self, target: Target, first: Source, present: Sequence[Slot]) -> bool:
        agree = True
        for slot in present:
            shape = slot.view.entries[slot.name].shape
            if shape != first.shape:
                owner = next(s.view.reference for s in present if s.view.entries[s.name].shape == first.shape)
                text = f"{target.name}: {list(first.shape)} in {owner}, {list(shape)} in {slot.view.reference}"
                self._shape_faults[(owner, slot.view.reference)].append(text)
                agree = False
        return agree

    def shape_faults(self) -> list[Fault]:
        """One fault for each pair of models whose shapes differ."""
        faults = []
        for texts in self._shape_faults.values():
            more = f" (and {len(texts) - 3} more tensors)" if len(texts) > 3 else ""
            rows = any("emb" in text or "head" in text or "wte" in text for text in texts[:3])
            hint = "Models of different width cannot be merged."
            if len(texts) <= 3 and rows:
                hint = "The vocabularies differ in size: give every model the same tokenizer and rows first, or copy these tensors from one model with a `tensors:` rule."
            faults.append(Fault("shapes differ: " + "; ".join(texts[:3]) + more + ".", self.recipe.where, hint))
        return faults

    def unused_rules(self) -> list[Fault]:
        """Report `tensors:` rules that no tensor came to."""
        return [
            Fault(f"rule {rule.match!r} matches no output tensor that an earlier rule has not taken.", rule.where)
            for rule in self.recipe.tensors
            if id(rule) not in self._rules_hit
        ]

    def _merge(self, target: Target, rule: TensorRule | None, present: Sequence[Slot]) -> Step | None:
        method = find_method(rule.merge_method if rule and rule.merge_method else self.recipe.merge_method)
        slots, base = self._arrange(method, target, present)
        wrong = self._count_fault(method, target, slots, base)
        if wrong is not None:
            self.faults.append(wrong)
            return None
        above: Levels = [(f"tensors[{rule.match!r}].parameters", rule.parameters)] if rule else []
        below: Levels = [
            ("slice parameters", target.slice.parameters),
            (f"modules.{target.module.name}.parameters", target.module.parameters),
            ("parameters", self.recipe.parameters),
        ]
        models = [
            (slot.view.reference, slot.name, [*above, (f"{slot.view.reference} parameters", _own(slot)), *below])
            for slot in slots
        ]
        values, explained = effective(
            method, target.name, target.t, shared=[*above, *below], models=models, missing=self.missing
        )
        sources = tuple(slot.view.entries[slot.name] for slot in slots)
        self.merged_models |= {slot.view.index for slot in slots}
        if base is not None:
            self.merged_models.add(base.model)
        first = base or sources[0]
        out = self._out_dtype(first)
        post = tuple(self._post(target))
        if method.name == "passthrough" and values["scale"] == (1.0,) and out == sources[0].dtype and not post:
            return Step(target.name, out, first.shape, "copy", sources, reason="passthrough")
        return Step(
            target.name, out, first.shape, "merge", sources, base, method.name, values, post,
            explained=explained if self.explain else (), stage=self.recipe.name or "",
        )

    def _arrange(self, method: Method, target: Target, present: Sequence[Slot]) -> tuple[list[Slot], Source | None]:
        """Return the stack's slots in order, and the base that deltas are taken from."""
        slots = list(present)
        at = next((slot for slot in slots if target.base is not None and slot.view.index == target.base.index), None)
        if method.sees.space == "deltas":
            base = at.view.entries[at.name] if at else None
            return [slot for slot in slots if slot is not at], base
        if method.base == "first" and at is not None:
            slots = [at, *(slot for slot in slots if slot is not at)]
        elif at is not None and at.given is None and not _takes_unlisted_base(method, target, self.recipe):
            slots.remove(at)
        return slots, None

    def _count_fault(
        self, method: Method, target: Target, slots: Sequence[Slot], base: Source | None
    ) -> Fault | None:
        where = self.recipe.merge_method_where
        if base is None and method.sees.space == "deltas":
            hint = "Name it with `base_model`" + ("; with `slices`, also among each slice's sources." if not target.module.whole else ".")
            return Fault(f"{method.name} works on differences from a base model; there is none.", where, hint)
        if method.base == "first" and (target.base is None or slots[0].view.index != target.base.index):
            return Fault(f"{method.name} starts from `base_model`, which must be one of its inputs.", where)
        count, low, high = len(slots), method.min_models, method.max_models
        if low <= count and (high is None or count <= high):
            return None
        kind = " besides the base" if base is not None else ""
        takes = f"exactly {low}" if low == high else f"at least {low}" if count < low else f"at most {high}"
        hint = f"Given: {', '.join(slot.view.reference for slot in slots) or 'none'}."
        return Fault(f"{method.name} takes {takes} model{'' if takes.endswith(' 1') else 's'}{kind}; there are {count}.", where, hint)

    def _post(self, target: Target) -> list[tuple[str, dict[str, Any]]]:
        levels_missing = Missing()
        steps = []
        for step in self.recipe.post:
            declared = find_method(step.name, post=True)
            levels: Levels = [(f"post step {step.name}", step.parameters)]
            values, _ = effective(declared, target.name, target.t, shared=levels, models=[], missing=levels_missing)
            steps.append((step.name, values))
        return steps


def _own(slot: Slot) -> Mapping[str, Any]:
    return slot.given.parameters if slot.given else {}


def _takes_unlisted_base(method: Method, target: Target, recipe: Recipe) -> bool:
    """Whether a base that only `base_model` names is averaged too, as in mergekit, where it has every number it needs.

    Otherwise it only gives what the others lack: config, tokenizer, and tensors such as heads.
    """
    if method.max_models is not None and len(target.slots) > method.max_models:
        return False
    required = [name for name, p in method.parameters.items() if p.per_model and name not in method.defaults]
    levels = (target.slice.parameters, target.module.parameters, recipe.parameters)
    return all(any(name in level for level in levels) for name in required)
