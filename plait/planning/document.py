"""One recipe document against its models: steps, and everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plait.dtypes import DTYPES
from plait.errors import Fault
from plait.methods import find_method, method_names
from plait.output.config import ConfigNote, output_config
from plait.planning.account import Account
from plait.planning.alignment import Aligned, align_tokens
from plait.planning.components import Components
from plait.planning.decide import Decisions
from plait.planning.experts import lay_out_experts
from plait.planning.extra import Extras
from plait.planning.matching import match_experts
from plait.planning.parameters import idle_parameters, unmatched_filters
from plait.planning.shapes import Shapes
from plait.planning.side import SideFiles, plan_side_files
from plait.planning.slots import Laid, Pair, layer_faults, mixed_layer_kinds, stack_for_slices, targets
from plait.planning.ties import Ties, settle_ties
from plait.planning.tokens import tokenizer_donor, vocabulary_warnings
from plait.planning.types import Dropped, Source, Step
from plait.planning.views import Library, View, align_to
from plait.recipe import takes
from plait.recipe.types import ModelRef, Module, Recipe
from plait.structure import config_differences, embedding_and_heads

__all__ = ["Planned", "plan_document"]


@dataclass(frozen=True)
class Planned:
    """What one document comes to."""

    recipe: Recipe
    steps: tuple[Step, ...]
    donor: View
    config: Mapping[str, Any] | None
    tied: Mapping[str, str]
    twins: tuple[tuple[Source, Source], ...]
    side: SideFiles
    dropped: Sequence[Dropped]
    warnings: Sequence[Fault]
    notes: Sequence[str]

    def as_view(self, index: int) -> View:
        """The output as a model that a later document merges."""
        entries = {step.name: Source(index, step=step) for step in self.steps}
        name = self.recipe.name or ""
        return View(index, name, self.config, entries, self.side.files, self.side.texts)


def plan_document(recipe: Recipe, library: Library, *, explain: bool = False) -> Planned | None:
    """Plan one document. Adds to `library.faults`; None when nothing can be planned."""
    views = _open(recipe, library)
    if views is None or not _methods_known(recipe):
        return None
    return _Document(recipe, library, views, explain).plan()


def _methods_known(recipe: Recipe) -> bool:
    names = {recipe.merge_method, *(rule.merge_method for rule in recipe.tensors if rule.merge_method)}
    return names <= {*method_names()} and {step.name for step in recipe.post} <= {*method_names(post=True)}


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
        """Plan the document in order: names, ties, layers, tensors, then what is left over, config and small files."""
        recipe, faults = self.recipe, self.library.faults
        self.warnings += recipe.warnings
        idle, notes = idle_parameters(recipe)
        self.warnings += idle
        self.notes += notes
        donor_key = str(next(_references(recipe)))
        self._align(donor_key)
        stored = dict(self.views)
        ties = self._settle_ties(donor_key)
        aligned = self._align_tokens(donor_key)
        donor = self.views[donor_key]
        laid, wrong = self._lay(donor)
        side = self._side_files(donor, aligned.tokens)
        self._judge_inputs(donor)
        if wrong or aligned.faults:
            faults += wrong
            return None
        parts = (Shapes(recipe.where, donor), Components(recipe, donor), Extras(donor, ties.names))
        decisions = Decisions(recipe, self.views, *parts, self.explain)
        steps = self._steps(decisions, laid, donor, ties)
        account = Account(recipe, donor, stored, self._inputs(laid), ties.names, laid)
        self._judge(decisions, account, steps, laid)
        config = self._config(donor, steps, laid, ties.says)
        lost = {(drop.model, drop.name) for drop in decisions.dropped}
        names = [model.reference for model in self.library.models]
        twins = tuple(pair for pair in ties.twins if (names[pair[0].model], pair[0].name) in lost)
        return Planned(
            recipe, tuple(steps), donor, config, ties.names, twins, side, decisions.dropped, self.warnings, self.notes
        )

    def _align(self, donor_key: str) -> None:
        donor = self.views[donor_key]
        for key, view in self.views.items():
            if view is not donor:
                laid, faults, notes = lay_out_experts(self.recipe, donor, view, self._merged())
                self.library.faults += faults
                named, note = align_to(donor, laid)
                self.notes += [*notes, *([note] if note else [])]
                if not faults and key in self._merged():
                    named, faults, notes = match_experts(self.recipe, donor, named)
                    self.library.faults += faults
                    self.notes += notes
                self.views[key] = named

    def _merged(self) -> set[str]:
        """References of the models that slices take from."""
        parts = [part for module in self.recipe.modules for part in module.slices]
        return {str(given.model) for part in parts for given in part.sources}

    def _settle_ties(self, donor_key: str) -> Ties:
        """Settle ties over all models; a model that only `copy_from` names counts where the rule takes a head."""
        from_rules = {str(rule.copy_from) for rule in self.recipe.tensors if rule.copy_from}
        merged_keys = (
            self._merged()
            | {donor_key}
            | {key for key in from_rules for name in self._heads(self.views[key]) if self._copies(key, name)}
        )
        merged = [self.views[key] for key in merged_keys]
        ties = settle_ties(list(self.views.values()), self.views[donor_key], merged)
        self.views = dict(zip(self.views, ties.views, strict=True))
        return ties

    def _heads(self, view: View) -> tuple[str, ...]:
        return embedding_and_heads(view.shapes, view.config)[1]

    def _copies(self, key: str, name: str) -> bool:
        return any(str(rule.copy_from) == key and takes(rule, name, "head") for rule in self.recipe.tensors)

    def _lay(self, donor: View) -> tuple[list[Laid], list[Fault]]:
        """Put each module with its models; returns what is wrong with its layers, too."""
        laid, faults = [], []
        for module in self.recipe.modules:
            stack, unclear = stack_for_slices(donor, module)
            pairs, bases = self._pairs(module)
            laid.append(Laid(module, pairs, bases, stack))
            faults += unclear + layer_faults(laid[-1], donor)
        return laid, faults

    def _pairs(self, module: Module) -> tuple[tuple[tuple[Pair, ...], ...], tuple[View | None, ...]]:
        pairs: list[tuple[Pair, ...]] = []
        bases: list[View | None] = []
        for part in module.slices:
            reference = part.base_model or self.recipe.base_model
            base = self.views[str(reference)] if reference else None
            inputs: list[Pair] = [(given, self.views[str(given.model)]) for given in part.sources]
            if base is not None and module.whole and all(view is not base for _, view in inputs):
                inputs.append((None, base))
            pairs.append(tuple(inputs))
            bases.append(base)
        return tuple(pairs), tuple(bases)

    def _inputs(self, laid: Sequence[Laid]) -> set[str]:
        return {view.reference for one in laid for inputs in one.pairs for _, view in inputs}

    def _steps(self, decisions: Decisions, laid: Sequence[Laid], donor: View, ties: Ties) -> list[Step]:
        names = [
            name
            for name in (*donor.entries, *(n for n in ties.added if n not in donor.entries))
            if name not in ties.names
        ]
        extra = decisions.extras.names(view for one in laid for inputs in one.pairs for _, view in inputs)
        steps: list[Step] = []
        for one in laid:
            more = [name for name in extra if _belongs(name, one.module)]
            extra = [name for name in extra if not _belongs(name, one.module)]
            inside = [name for name in names if _belongs(name, one.module)]
            if not inside:
                decisions.faults.append(_no_such_part(one.module, donor))
            names = [name for name in names if not _belongs(name, one.module)]
            steps += [step for target in targets(one, inside, more) if (step := decisions.step(target)) is not None]
        steps += [decisions.copy_outside(name, donor, "in none of the recipe's modules") for name in names]
        return steps

    def _judge_inputs(self, donor: View) -> None:
        """What can be said before any tensor: meanings of configs, vocabularies, filters."""
        configs = [(view.reference, view.config or {}) for view in self.views.values()]
        self.warnings += [Fault(text, self.recipe.where) for text in config_differences(configs)]
        self.warnings += vocabulary_warnings(self.recipe, list(self.views.values()), donor)
        if (donor.config or {}).get("auto_map"):
            message = f"{donor.reference} needs its own code (auto_map); its Python files are not copied."
            self.warnings.append(Fault(message, self.recipe.where))
        known: dict[str, str] = {}
        for view in self.views.values():
            components = Components(self.recipe, view)
            known |= {name: components.of(name, source.shape) for name, source in view.entries.items()}
        self.library.faults += unmatched_filters(self.recipe, known)

    def _judge(self, decisions: Decisions, account: Account, steps: Sequence[Step], laid: Sequence[Laid]) -> None:
        """What only the finished steps can tell."""
        faults = self.library.faults
        references = [model.reference for model in self.library.models]
        decisions.shapes.fit_donor(steps, references)
        found = [*dict.fromkeys(decisions.faults), *decisions.shapes.faults()]
        found += [*decisions.missing.faults(self.recipe), *decisions.unused_rules(), *_scope_faults(self.recipe, steps)]
        faults += found
        surprising = account.drop_rest(decisions)
        strict, told = account.judge_partial(decisions, surprising)
        faults += strict
        self.warnings += told
        for one in laid:
            self.warnings += mixed_layer_kinds(one) if one.stack else []
        if not found:
            faults += account.ignored(decisions)

    def _align_tokens(self, donor_key: str) -> Aligned:
        """Align the rows of token tables."""
        donor = self.views[donor_key]
        source = tokenizer_donor(self.recipe, self.views, donor, self.library)
        found = align_tokens(self.recipe, self.views, donor, source)
        self.views = dict(found.views)
        self.library.faults += found.faults
        self.warnings += found.warnings
        self.notes += found.notes
        return found

    def _side_files(self, donor: View, tokens: View | None) -> SideFiles:
        side, faults = plan_side_files(self.recipe, list(self.views.values()), donor, tokens or donor)
        self.library.faults += faults
        self.notes += [side.note] if side.note else []
        return side

    def _config(
        self, donor: View, steps: Sequence[Step], laid: Sequence[Laid], tied: bool | None
    ) -> Mapping[str, Any] | None:
        if donor.config is None:
            self.warnings.append(
                Fault(f"{donor.reference} has no config.json, so the output has none.", self.recipe.where)
            )
            return None
        config, notes = dict(donor.config), list[ConfigNote]()
        for one in laid:
            if one.stack is not None:
                config, more = output_config(
                    config,
                    layers=self._layer_sources(one),
                    stack_length=one.stack.length,
                    stack_prefix=one.stack.prefix,
                )
                notes += more
        dtype = self.recipe.out_dtype or self.recipe.dtype or _commonest(steps)
        config, more = output_config(config, dtype=dtype, tied=tied)
        for note in (*notes, *more):
            if note.warning:
                self.warnings.append(Fault(f"config.json: {note}", self.recipe.where))
            else:
                self.notes.append(f"config.json: {note}")
        return config

    def _layer_sources(self, laid: Laid) -> list[tuple[Mapping[str, Any], int]]:
        """Whose config speaks of each output layer, and which layer of it."""
        layers: list[tuple[Mapping[str, Any], int]] = []
        for inputs in laid.pairs:
            given, view = inputs[0]
            if given is not None and given.layer_range is not None:
                layers += [(view.config or {}, index) for index in range(*given.layer_range)]
        return layers


def _belongs(name: str, module: Module) -> bool:
    return module.name in {"", "default"} or module.name in name.split(".")


def _no_such_part(module: Module, donor: View) -> Fault:
    parts = {part for name in donor.entries for part in name.split(".")[:-1][:2] if not part.isdigit()}
    return Fault(
        f"module {module.name!r} is no part of {donor.reference}.", module.where, f"Parts: {', '.join(sorted(parts))}."
    )


def _scope_faults(recipe: Recipe, steps: Sequence[Step]) -> list[Fault]:
    """Refuse `scope: model` where densities differ between tensors: one threshold over all needs one density."""
    densities: dict[str, dict[Any, str]] = {}
    for step in steps:
        scoped = step.method and any(one.scoped for one in find_method(step.method).measured.values())
        if scoped and step.parameters.get("scope") == "model" and "density" in step.parameters:
            densities.setdefault(step.method, {}).setdefault(step.parameters["density"], step.name)
    faults = []
    for method, found in densities.items():
        if len(found) > 1:
            told = " and ".join(f"{list(value)} for {name}" for value, name in list(found.items())[:2])
            message = f"{method}: scope: model needs one density a model for all tensors; it is {told}."
            hint = "Densities that vary with scope: model are not implemented; write one number a model."
            faults.append(Fault(message, recipe.merge_method_where, hint))
    return faults


def _commonest(steps: Sequence[Step]) -> str:
    sizes: dict[str, int] = {}
    for step in steps:
        if DTYPES[step.dtype].is_float:
            sizes[step.dtype] = sizes.get(step.dtype, 0) + step.size
    return DTYPES[max(sizes, key=lambda code: sizes[code])].name if sizes else "float32"
