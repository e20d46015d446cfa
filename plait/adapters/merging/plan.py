"""What merging adapters into an adapter will do, from headers alone."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

from plait.adapters.folder import CONFIG_NAME, WEIGHTS_NAME
from plait.adapters.merging.models import NO_BASE, Models, enter_views, open_models
from plait.adapters.merging.modules import Adapter, Joined
from plait.adapters.merging.settings import Settings, settings_of
from plait.dtypes import DTYPES, dtype_by_name
from plait.errors import Fault, RecipeError
from plait.methods import MethodError, find_method
from plait.output.lock import Lock
from plait.planning.document import Planned, plan_document
from plait.planning.layout import lay_out
from plait.planning.parameters import check_document
from plait.planning.types import Dropped, File, Plan, Source, Step
from plait.planning.views import Library
from plait.recipe import takes
from plait.recipe.types import AdapterSpec, ModelRef, Recipe, TensorRule

__all__ = ["BASE_LAYER", "NO_BASE", "AdapterPlan", "How", "Making", "plan_adapter"]

How = Literal["beside", "sum", "core", "clusters"]
BASE_LAYER = ".base_layer.weight"
_SUMS = ("linear", "task_arithmetic", "passthrough")
"""Methods that are a sum of the models, with weights that depend on nothing else."""


@dataclass(frozen=True)
class Making:
    """How the factors of one module are made."""

    joined: Joined
    step: Step
    how: How
    """The adapters' factors beside each other; the singular vectors of their sum, or of what a method makes of their
    cores; or clusters of units."""
    shares: Mapping[int, float] = field(default_factory=dict)
    """What each adapter counts, by model; of a method that is no sum, nothing."""

    @property
    def most(self) -> int:
        """The rank that comes out at most, if nothing is cut."""
        if self.how == "beside":
            return sum(part.rank for part in self.joined.parts if self.shares.get(part.model))
        return self.joined.total if self.how == "clusters" else min(self.joined.core)


@dataclass(frozen=True, kw_only=True)
class AdapterPlan(Plan):
    """A plan whose output is an adapter. Its steps are what methods do: with small matrices instead of weights."""

    spec: AdapterSpec
    makings: tuple[Making, ...]
    """One for each module, in natural order."""
    biases: Mapping[str, Step]
    """Module -> how the bias of its B is merged; for all modules or none."""
    whole: tuple[Step, ...]
    """Tensors saved whole."""
    settings: Settings
    factors: str
    """Element type code of the factors."""
    adapters: tuple[str, ...]
    """Which of the models are adapters, by reference."""

    def rank(self, making: Making) -> int:
        """The rank that a module will have, at most."""
        return _rank(making, self.spec)


def plan_adapter(
    documents: Sequence[Recipe], root: Path, lock: Lock | None = None, *, seed: int | None = None, explain: bool = False
) -> AdapterPlan:
    """Plan a merge of adapters into an adapter, from a recipe's documents, or those of a lock. See `plait.plan`.

    Raises:
        RecipeError: with everything that is wrong.
    """
    recipe = next(document for document in documents if document.adapter)
    faults = [fault for document in documents for fault in check_document(document)]
    if len(documents) > 1:
        faults.append(Fault("A recipe whose output is an adapter is one document.", recipe.where, "Stages are models."))
    faults += _clusters_faults(recipe)
    library = Library(root, faults, lock.models if lock else {}, dict(lock.commits) if lock else {})
    models = open_models(recipe, library)
    made = None if models is None else _planned(recipe, models, explain=explain)
    if faults or models is None or made is None:
        raise RecipeError(faults)
    stated = lock.seed if lock else recipe.seed or 0
    plan = _assemble(recipe, models, made, stated if seed is None else seed)
    return replace(plan, expected_hashes=lock.hashes) if lock else plan


def _clusters_faults(recipe: Recipe) -> list[Fault]:
    """Units are grouped, and each group's mean taken: there is nothing for another method to do."""
    if recipe.adapter is None or recipe.adapter.clusters is None:
        return []
    hint = "Its weights say what each adapter counts in the means."
    faults = []
    if recipe.merge_method != "linear":
        message = f"'clusters' takes the mean of alike units: merge_method is linear there, not {recipe.merge_method}."
        faults.append(Fault(message, recipe.merge_method_where, hint))
    faults += [
        Fault("'clusters' is for all modules: no rule has a method of its own there.", rule.where, hint)
        for rule in recipe.tensors
        if rule.merge_method
    ]
    return faults


def _planned(recipe: Recipe, models: Models, *, explain: bool) -> Planned | None:
    """Let the ordinary planner decide, over small matrices in the place of weights."""
    library = models.library
    merged = [str(given.model) for given in recipe.modules[0].slices[0].sources]
    rules = [*recipe.tensors, *_rules_for_some(recipe, models, merged)]
    base = recipe.base_model or (NO_BASE if _needs_base(recipe) else None)
    _check_whole(recipe, models, merged)
    enter_views(models, base)
    seen = replace(recipe, base_model=base, tensors=tuple(rules), dtype=None, out_dtype=None, text="")
    return plan_document(seen, library, explain=explain)


def _methods(recipe: Recipe) -> list[str]:
    return [recipe.merge_method, *(rule.merge_method for rule in recipe.tensors if rule.merge_method)]


def _needs_base(recipe: Recipe) -> bool:
    try:
        return any(find_method(name).sees.space == "deltas" for name in _methods(recipe))
    except MethodError:
        return False  # told by `check_document`


def _rules_for_some(recipe: Recipe, models: Models, merged: Sequence[str]) -> list[TensorRule]:
    """Copy what only some adapters save whole from the first that does, where neither recipe nor base says better."""
    rules = []
    for name, holders in models.whole.items():
        has = {adapter.reference for adapter in holders}
        by_base = models.base is not None and name in models.base.tensors
        if by_base or all(reference in has for reference in merged) or _rule_of(recipe, name) is not None:
            continue
        text = f"{name} is saved whole by {', '.join(sorted(has))} alone"
        if recipe.strict:
            hint = "Add a `tensors:` rule (copy_from, drop), name the base checkpoint, or leave out `strict`."
            models.library.faults.append(Fault(f"strict: {text}.", recipe.where, hint))
        models.notes.append(f"{text}: copied from {holders[0].reference}.")
        source = ModelRef(*_split(holders[0], recipe))
        rules.append(TensorRule(glob.escape(name), recipe.where, copy_from=source))
    return rules


def _split(adapter: Adapter, recipe: Recipe) -> tuple[str, str | None]:
    """Path and revision of an adapter, as the recipe has them."""
    references = [given.model for given in recipe.modules[0].slices[0].sources]
    references += [rule.copy_from for rule in recipe.tensors if rule.copy_from]
    references += [recipe.base_model] if recipe.base_model else []
    found = next(reference for reference in references if str(reference) == adapter.reference)
    return found.path, found.revision


def _rule_of(recipe: Recipe, name: str) -> TensorRule | None:
    return next((rule for rule in recipe.tensors if takes(rule, name)), None)


def _check_whole(recipe: Recipe, models: Models, merged: Sequence[str]) -> None:
    """Refuse to take differences of tensors saved whole from a base that is not known."""
    try:
        by_rule = {name: find_method(name) for name in _methods(recipe)}
    except MethodError:
        return
    needy = []
    for name, holders in models.whole.items():
        rule = _rule_of(recipe, name)
        method = by_rule[rule.merge_method if rule and rule.merge_method else recipe.merge_method]
        known = (models.base is not None and name in models.base.tensors) or (
            recipe.base_model is not None and str(recipe.base_model) in {one.reference for one in holders}
        )
        settled = rule is not None and (rule.drop or rule.copy_from is not None)
        everyone = {one.reference for one in holders} >= set(merged)
        if method.subtracts(base=recipe.base_model is not None) and everyone and not known and not settled:
            needy.append((name, method.name))
    if needy:
        names, method_name = ", ".join(name for name, _ in needy[:4]), needy[0][1]
        message = f"{method_name} works on differences, and these are saved whole: {names}."
        hint = (
            "Name the base checkpoint as `base_model`, or give them a rule under `tensors`, such as "
            f"{{match: '{needy[0][0]}', merge_method: linear}} or one with copy_from."
        )
        models.library.faults.append(Fault(message, recipe.merge_method_where, hint))


def _assemble(recipe: Recipe, models: Models, made: Planned, seed: int) -> AdapterPlan:
    spec, factors = _spec(recipe), _factors_type(recipe)
    steps = [_in_type(_without_zeros(step, models), recipe) for step in made.steps]
    by_name = {step.name: step for step in steps}
    makings = tuple(_making(one, by_name[one.weight], spec, models) for one in models.joined if one.weight in by_name)
    if not makings:
        raise RecipeError([Fault("No module is left: peft has no adapter without factors.", recipe.where)])
    cores = {name for one in models.joined for name in (one.weight, one.bias)}
    whole = (*(step for step in steps if step.name not in cores), *_base_layers(models, makings))
    settings, told = settings_of(models, [one.joined for one in makings], whole, spec.base_name)
    _, placed = lay_out(list(dict.fromkeys([*steps, *whole])), 1 << 62)
    size = sum(_most_bytes(one, spec, DTYPES[factors].size) for one in makings) + sum(step.nbytes for step in whole)
    donor, files = models.tokenizer()
    return AdapterPlan(
        recipe=recipe,
        stages=(recipe,),
        models=tuple(models.library.models),
        placed=placed,
        files=(File(WEIGHTS_NAME, size, b""),),
        donor=donor,
        config=None,
        side_files=files,
        seed=seed,
        dropped=(*_unread(models), *(drop for drop in made.dropped if drop.model != str(NO_BASE))),
        warnings=(*made.warnings, *(Fault(text, recipe.where) for text in told), *_apart(models, recipe)),
        notes=(*models.notes, *(note for note in made.notes if not note.startswith("config.json"))),
        texts={CONFIG_NAME: ""},
        commits=dict(sorted(models.library.commits.items())),
        spec=spec,
        makings=makings,
        biases={one.joined.name: by_name[one.joined.bias] for one in makings if one.joined.bias in by_name},
        whole=whole,
        settings=settings,
        factors=factors,
        adapters=tuple(one.reference for one in models.adapters),
    )


def _unread(models: Models) -> Iterator[Dropped]:
    for adapter in models.adapters:
        for name in adapter.sorted.unread:
            yield Dropped(adapter.reference, name, "a copy of the base's own tensor")


def _spec(recipe: Recipe) -> AdapterSpec:
    if recipe.adapter is None:
        raise AssertionError("only recipes with `adapter` come here")
    return recipe.adapter


def _base_layers(models: Models, makings: Sequence[Making]) -> Iterator[Step]:
    """Copy the weights of embeddings and heads that peft saves beside their factors; they are held against each other."""
    for one in makings:
        module, weight = one.joined.name, one.joined.weight
        sources = [Source(a.model, a.copies[module]) for a in models.adapters if module in a.copies]
        if sources and models.base is not None and models.zeros is not None and weight in models.base.tensors:
            sources.append(Source(models.zeros, models.base.tensors[weight]))
        alike = tuple(s for s in sources if (s.dtype, s.shape) == (sources[0].dtype, sources[0].shape))
        if sources:
            name, first = f"{module}{BASE_LAYER}", sources[0]
            reason = "what the factors are added to; same in all adapters"
            yield Step(name, first.dtype, first.shape, "copy", alike, reason=reason)


def _rank(making: Making, spec: AdapterSpec) -> int:
    wanted = None if making.how == "beside" else spec.rank or spec.clusters
    return min(making.most, wanted) if wanted else making.most


def _most_bytes(making: Making, spec: AdapterSpec, width: int) -> int:
    """Bytes of a module's tensors, if nothing is cut that is not asked for."""
    rank, joined = _rank(making, spec), making.joined
    return width * (rank * (joined.outputs + prod(joined.inputs)) + joined.outputs * joined.biased)


def _factors_type(recipe: Recipe) -> str:
    wanted = dtype_by_name(recipe.out_dtype or recipe.dtype or "")
    return wanted.code if wanted else "F32"


def _in_type(step: Step, recipe: Recipe) -> Step:
    """Write tensors saved whole in the element type that the recipe asks for."""
    wanted = dtype_by_name(recipe.out_dtype or recipe.dtype or "")
    stored = all(source.tensor is not None and source.tensor.derived is None for source in step.sources)
    if wanted is None or not stored or not DTYPES[step.dtype].is_float or step.dtype == wanted.code:
        return step
    if step.action == "copy":
        return replace(step, dtype=wanted.code, action="merge", method="passthrough", parameters={"scale": (1.0,)})
    return replace(step, dtype=wanted.code)


def _without_zeros(step: Step, models: Models) -> Step:
    """Leave out what changes nothing from methods that would average it with the adapters."""
    kept = [i for i, source in enumerate(step.sources) if source.model != models.zeros]
    if step.action == "copy" or len(kept) == len(step.sources):
        return step
    count = len(step.sources)
    parameters = {
        name: tuple(value[i] for i in kept) if isinstance(value, tuple) and len(value) == count else value
        for name, value in step.parameters.items()
    }
    return replace(step, sources=tuple(step.sources[i] for i in kept), parameters=parameters)


def _making(joined: Joined, step: Step, spec: AdapterSpec, models: Models) -> Making:
    if spec.clusters is not None:
        return Making(joined, step, "beside" if step.action == "copy" else "clusters", _shares(step, models))
    alone = step.action == "copy" or (step.method in (*_SUMS, "passthrough") and not step.post)
    return (
        Making(joined, step, "beside", _shares(step, models)) if spec.exact and alone else Making(joined, step, "core")
    )


def _shares(step: Step, models: Models) -> dict[int, float]:
    """What each adapter counts in a sum: found by giving the method the numbers 1 and 0 for the adapters."""
    if step.action == "copy":
        return {step.sources[0].model: 1.0}
    counts = _counts(step)
    shares: dict[int, float] = {}
    for source, count in zip(step.sources, counts, strict=True):
        shares[source.model] = shares.get(source.model, 0.0) + count
    if step.base is not None and step.base.model != models.zeros:
        shares[step.base.model] = shares.get(step.base.model, 0.0) + 1 - sum(counts)
    return shares


def _counts(step: Step) -> list[float]:
    import numpy as np

    values: dict[str, Any] = {
        name: np.array(value, np.float64).reshape(-1, 1) if isinstance(value, tuple) else value
        for name, value in step.parameters.items()
    }
    found = find_method(step.method).run(np.eye(len(step.sources)), **values)
    return [float(one) for one in np.asarray(found).reshape(-1)]


def _apart(models: Models, recipe: Recipe) -> list[Fault]:
    """Warn of adapters that have no module in common: their names may be those of different classes."""
    own = [(one, set(one.sorted.modules)) for one in models.adapters]
    first, modules = own[0]
    return [
        Fault(
            f"{first.reference} and {other.reference} have no module in common, such as {min(modules)} and {min(theirs)}: "
            "are they for the same class of model?",
            recipe.where,
        )
        for other, theirs in own[1:]
        if modules and theirs and not modules & theirs
    ]
