"""One recipe document against its models: steps, and everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plait.dtypes import DTYPES
from plait.errors import Fault
from plait.methods import find_method
from plait.output.config import output_config
from plait.planning.decide import Decisions
from plait.planning.parameters import check_parameters, check_post, unmatched_filters
from plait.planning.slots import Pair, Target, layer_faults, stacks_for_slices, targets
from plait.planning.tokens import vocabulary_faults
from plait.planning.types import Dropped, Step
from plait.planning.views import Library, View, align_to, settle_ties
from plait.recipe.types import ModelRef, Module, Recipe
from plait.structure import Stack, config_differences

__all__ = ["Planned", "plan_document"]


@dataclass
class Planned:
    """What one document comes to."""

    recipe: Recipe
    steps: tuple[Step, ...]
    donor: View
    config: Mapping[str, Any] | None
    tied: Mapping[str, str]
    dropped: list[Dropped]
    warnings: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan_document(recipe: Recipe, library: Library, *, explain: bool = False) -> Planned | None:
    """Plan one document. Adds to `library.faults`; None when nothing can be planned."""
    library.faults += check_parameters(recipe) + check_post(recipe)
    known = len(library.faults)
    views = _open(recipe, library)
    if views is None or len(library.faults) > known or not _methods_known(recipe):
        return None
    return _Document(recipe, library, views, explain).plan()


def _methods_known(recipe: Recipe) -> bool:
    names = [recipe.merge_method, *(rule.merge_method for rule in recipe.tensors if rule.merge_method)]
    try:
        return all(find_method(name) for name in names)
    except Exception:  # noqa: BLE001 - told by check_parameters already
        return False


def _references(recipe: Recipe) -> Iterator[ModelRef]:
    """Every model of the document: the base first, then inputs as listed, then those that rules copy from."""
    if recipe.base_model:
        yield recipe.base_model
    for module in recipe.modules:
        for part in module.slices:
            if part.base_model:
                yield part.base_model
            for given in part.sources:
                yield given.model
    for rule in recipe.tensors:
        if rule.copy_from:
            yield rule.copy_from


def _open(recipe: Recipe, library: Library) -> dict[str, View] | None:
    opened = {str(reference): library.view(reference) for reference in _references(recipe)}
    found = {key: view for key, view in opened.items() if view is not None}
    return found if len(found) == len(opened) else None


@dataclass
class _Document:
    recipe: Recipe
    library: Library
    views: dict[str, View]
    explain: bool
    warnings: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def plan(self) -> Planned | None:
        recipe, faults = self.recipe, self.library.faults
        self.warnings += recipe.warnings
        donor_key = str(next(_references(recipe)))
        self._align(donor_key)
        inputs = {key: view for key, view in self.views.items()}
        tied, completed, says_tied = settle_ties(list(inputs.values()), self.views[donor_key])
        self.views = dict(zip(inputs, completed, strict=True))
        donor = self.views[donor_key]
        stack = self._stack(donor)
        base = self.views.get(str(recipe.base_model)) if recipe.base_model else None
        decisions = Decisions(recipe, base, self.views, self.explain)
        known = len(faults)
        wanted = self._targets(donor, tied, stack)
        if len(faults) > known:
            return None
        steps = [step for target in wanted if (step := decisions.step(target)) is not None]
        self._judge(decisions, donor, wanted)
        self._drop_rest(decisions, tied)
        if recipe.strict:
            self._refuse_partial(decisions)
        self._describe(decisions)
        config = self._config(donor, steps, stack, says_tied)
        faults += vocabulary_faults(recipe, list(self.views.values()), donor, self.warnings)
        return Planned(
            recipe, tuple(steps), donor, config, tied, decisions.dropped, self.warnings, self.notes
        )

    def _align(self, donor_key: str) -> None:
        donor = self.views[donor_key]
        for key, view in self.views.items():
            if key != donor_key:
                self.views[key], note = align_to(donor, view)
                self.notes += [note] if note else []

    def _stack(self, donor: View) -> Stack | None:
        """The stack that slices speak of; a fault when they are used and it is not clear which."""
        found = stacks_for_slices(donor)
        if len(found) != 1 and any(not module.whole for module in self.recipe.modules):
            has = " and ".join(f"{s.prefix} ({s.length} layers)" for s in found) or "no layers"
            message = f"slices: {donor.reference} has {has}, so which layers are meant is not clear."
            self.library.faults.append(Fault(message, self.recipe.modules[0].where, "Use `models`, or name the parts under `modules`."))
        return found[0] if len(found) == 1 else None

    def _pairs(self, module: Module) -> tuple[list[list[Pair]], list[View | None]]:
        pairs: list[list[Pair]] = []
        bases: list[View | None] = []
        for part in module.slices:
            reference = part.base_model or self.recipe.base_model
            base = self.views[str(reference)] if reference else None
            inputs: list[Pair] = [(given, self.views[str(given.model)]) for given in part.sources]
            if base is not None and module.whole and all(view is not base for _, view in inputs):
                inputs.append((None, base))
            pairs.append(inputs)
            bases.append(base)
        return pairs, bases

    def _targets(self, donor: View, tied: Mapping[str, str], stack: Stack | None) -> list[Target]:
        found: list[Target] = []
        claimed: set[str] = set()
        for module in self.recipe.modules:
            pairs, bases = self._pairs(module)
            self.library.faults += layer_faults(module, pairs, stack)
            names = [name for name in self._names(module, donor) if name not in tied and name not in claimed]
            claimed.update(names)
            if self.library.faults:
                continue
            found += targets(module, pairs, bases, names, stack)
        return found

    def _names(self, module: Module, donor: View) -> list[str]:
        """The donor's names that belong to the module, and heads of its own that another model brings."""
        names = list(donor.entries)
        heads = {name for view in self.views.values() for name in view.tied if name not in donor.entries}
        names += sorted(name for name in heads if any(name in v.entries and name not in v.tied for v in self.views.values()))
        if module.name in ("", "default") or len(self.recipe.modules) == 0:
            return names
        inside = [name for name in names if module.name in name.split(".")]
        if not inside:
            parts = sorted({name.split(".")[0] for name in names} | {name.split(".")[1] for name in names if "." in name})
            message = f"module {module.name!r} is no part of {donor.reference}."
            self.library.faults.append(Fault(message, module.where, f"Parts: {', '.join(p for p in parts if not p.isdigit())}."))
        return inside

    def _judge(self, decisions: Decisions, donor: View, wanted: Sequence[Target]) -> None:
        faults = self.library.faults
        faults += dict.fromkeys(decisions.faults)
        faults += decisions.shape_faults()
        faults += decisions.missing.faults(self.recipe, self.recipe.merge_method)
        faults += decisions.unused_rules()
        every = [name for view in self.views.values() for name in view.entries]
        faults += unmatched_filters(self.recipe, [*every, *(target.name for target in wanted)])
        self.warnings += [
            Fault(text, self.recipe.where) for text in config_differences([(v.reference, v.config or {}) for v in self.views.values()])
        ]
        copied = {str(rule.copy_from) for rule in self.recipe.tensors if rule.copy_from}
        if faults:
            return
        for key, view in self.views.items():
            if view.index in decisions.merged_models or key in copied or view is donor:
                continue
            message = f"{key} would be ignored: none of its tensors is merged with {donor.reference}'s."
            faults.append(Fault(message, self.recipe.where, self._why_ignored(view, donor)))

    def _why_ignored(self, view: View, donor: View) -> str:
        shared = len(view.entries.keys() & donor.entries.keys())
        mine, theirs = next(iter(view.entries), "nothing"), next(iter(donor.entries), "nothing")
        return f"{shared} names are shared; it has {mine}, {donor.reference} has {theirs}."

    def _drop_rest(self, decisions: Decisions, tied: Mapping[str, str]) -> None:
        """List every input tensor that nothing reads, with the reason."""
        sliced = any(not module.whole for module in self.recipe.modules)
        seen = set()
        for view in self.views.values():
            for name, source in view.entries.items():
                key = (view.index, source.name)
                if key in decisions.used or key in seen or name in view.tied:
                    continue
                seen.add(key)
                reason = "no slice takes it" if sliced else f"the output follows {self.library.models[self._donor_index()].reference}, which has no such tensor"
                if name in tied:
                    reason = f"tied to {tied[name]}"
                decisions.dropped.append(Dropped(view.reference, name, reason))

    def _donor_index(self) -> int:
        return self.views[str(next(_references(self.recipe)))].index

    def _refuse_partial(self, decisions: Decisions) -> None:
        for reason, names in decisions.partial.items():
            text = f"strict: {len(names)} tensors are {reason}, such as {names[0]}."
            self.library.faults.append(Fault(text, self.recipe.where, "Add a `tensors:` rule (copy_from, drop), or leave out `strict`."))
        for drop in decisions.dropped:
            if drop.reason.startswith("the output follows"):
                self.library.faults.append(Fault(f"strict: {drop.name} of {drop.model} would be dropped.", self.recipe.where))

    def _describe(self, decisions: Decisions) -> None:
        for reason, names in decisions.partial.items():
            some = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            self.warnings.append(Fault(f"{len(names)} tensors are copied, being {reason}: {some}.", self.recipe.where))
        lost = [drop for drop in decisions.dropped if drop.reason.startswith("the output follows")]
        for model in dict.fromkeys(drop.model for drop in lost):
            names = [drop.name for drop in lost if drop.model == model]
            some = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            reason = next(drop.reason for drop in lost if drop.model == model)
            self.warnings.append(Fault(f"{len(names)} tensors of {model} are dropped ({reason}): {some}.", self.recipe.where))

    def _config(
        self, donor: View, steps: Sequence[Step], stack: Stack | None, tied: bool | None
    ) -> Mapping[str, Any] | None:
        if donor.config is None:
            self.warnings.append(Fault(f"{donor.reference} has no config.json, so the output has none.", self.recipe.where))
            return None
        layers = self._layer_sources(stack)
        dtype = self.recipe.out_dtype or self.recipe.dtype or _commonest(steps)
        config, notes = output_config(donor.config, layers=layers, dtype=dtype, tied=tied)
        self.notes += notes
        return config

    def _layer_sources(self, stack: Stack | None) -> list[tuple[Mapping[str, Any], int]] | None:
        if stack is None or all(module.whole for module in self.recipe.modules):
            return None
        layers = []
        for module in self.recipe.modules:
            for part in module.slices:
                given = part.sources[0]
                begin, end = given.layer_range or (0, stack.length)
                config = self.views[str(given.model)].config or {}
                layers += [(config, index) for index in range(begin, end)]
        return layers


def _commonest(steps: Sequence[Step]) -> str:
    sizes: dict[str, int] = {}
    for step in steps:
        if DTYPES[step.dtype].is_float:
            sizes[step.dtype] = sizes.get(step.dtype, 0) + step.size
    return DTYPES[max(sizes, key=lambda code: sizes[code])].name if sizes else "float32"


