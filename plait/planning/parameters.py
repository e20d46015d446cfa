"""From what a recipe says about parameters to the numbers that a method is given for one tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plait.errors import Fault, Where, did_you_mean
from plait.methods import Method, MethodError, Parameter, find_method
from plait.planning.slots import Target
from plait.planning.types import Explained
from plait.recipe import Resolved, entries_of, filters_in, matches, parameter_mentions, resolve
from plait.recipe.types import Filtered, PerLayer, Recipe, Setting

__all__ = ["Levels", "Missing", "check_document", "effective", "idle_parameters", "unmatched_filters"]

Levels = Sequence[tuple[str, Mapping[str, Setting]]]


@dataclass
class Missing:
    """Required parameters that had no value: (method, parameter, model) -> names of tensors."""

    tensors: dict[tuple[str, str, str | None], list[str]] = field(default_factory=dict)
    misfits: dict[tuple[Where, str, int, int], str] = field(default_factory=dict)
    """(line, parameter, numbers, layers) -> a tensor, where numbers a layer are more or fewer than the layers."""
    clashes: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """(method, what is wrong with its values together) -> names of tensors."""

    def check_together(self, method: Method, values: Mapping[str, Any], tensor: str) -> None:
        """Note values of a tensor that are each right but do not go together."""
        wrong = method.fault(values)
        if wrong:
            self.clashes.setdefault((method.name, wrong), []).append(tensor)

    def check_layers(self, parameter: str, found: Resolved | None, target: Target) -> None:
        """Note numbers a layer of which there are more or fewer than layers."""
        if found is not None and found.layers and target.layers and found.layers != target.layers:
            self.misfits.setdefault((found.where, parameter, found.layers, target.layers), target.name)

    def faults(self, recipe: Recipe) -> Iterator[Fault]:
        """One fault for each parameter and model, and for each misfit."""
        for (where, parameter, numbers, layers), name in self.misfits.items():
            message = f"{parameter!r} has {numbers} numbers, one a layer; there are {layers} layers, as at {name}."
            yield Fault(message, where, "Write a number for each layer; filters keep it to the layers meant.")
        for (method, wrong), names in self.clashes.items():
            message = f"{method}: {wrong} ({_counted(names)})."
            yield Fault(message, recipe.merge_method_where)
        for (method, parameter, model), names in self.tensors.items():
            of = f" for {model}" if model else ""
            tensors = _counted(names)
            places = (
                "under the model's own `parameters` or the recipe's" if model else "under the recipe's `parameters`"
            )
            message = f"{method} needs {parameter!r}{of}; nothing sets it for {tensors}."
            yield Fault(message, recipe.merge_method_where, f"Set it {places}.")


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} tensors, such as {names[0]}" if len(names) > 1 else names[0]


def effective(
    method: Method,
    target: Target,
    *,
    component: str,
    shared: Levels,
    models: Sequence[tuple[str, str, Levels]],
    missing: Missing,
    explain: bool = False,
) -> tuple[dict[str, Any], tuple[Explained, ...]]:
    """Return a method's parameters for one tensor, and, on demand, why each has its value.

    `component` is what the tensor is for; `shared` are the levels that hold for all models, highest first; `models`
    has, for each entry of the stack, its name, its tensor's own name (which filters see, as in mergekit) and its
    levels. A value that `check_document` finds at fault is passed over.
    """
    values: dict[str, Any] = {}
    explained: list[Explained] = []
    variant = _variant(method, target, shared, component)
    defaults = method.defaults_of(variant)
    for name, declared in method.parameters.items():
        asked = models if declared.per_model else [("", target.name, shared)]
        numbers = []
        for model, own_name, levels in asked:
            found = _resolve(name, declared, own_name, target.t, levels, component, model)
            missing.check_layers(name, found, target)
            if found is not None and not declared.fault(found.value):
                value = declared.read(found.value)
            elif name in defaults:
                value = defaults[name]
            else:
                value = 1.0 if declared.kind is float else declared.kind()
                if found is None:
                    missing.tensors.setdefault((method.name, name, model or None), []).append(target.name)
            numbers.append(value)
            if explain:
                rule = _rule(found, variant if name in method.variant_defaults.get(variant, {}) else "")
                explained.append(Explained(name, model or None, value, rule))
        values[name] = tuple(float(number) for number in numbers) if declared.per_model else numbers[0]
    if method.variant_defaults:
        del values["variant"]  # it has had its effect
    return values, tuple(explained)


def _variant(method: Method, target: Target, shared: Levels, component: str) -> str:
    """Whose defaults the recipe asks for; "" for a method that has no variants."""
    if not method.variant_defaults:
        return ""
    declared = method.parameters["variant"]
    found = _resolve("variant", declared, target.name, target.t, shared, component, "")
    return str(method.defaults["variant"] if found is None or declared.fault(found.value) else found.value)


def _rule(found: Resolved | None, variant: str) -> str:
    if found is None:
        return f"default of variant {variant}" if variant else "default"
    return f"{found.where}, {found.level}" + (f": {found.note}" if found.note else "")


def _resolve(
    name: str, declared: Parameter, tensor: str, t: float, levels: Levels, component: str, model: str
) -> Resolved | None:
    for level in levels:
        for word in (name, declared.also):
            if word and word in level[1]:
                found = resolve(word, tensor, t, (level,), component=component, model=model)
                if found is not None:
                    return found
    return None


def check_document(recipe: Recipe) -> list[Fault]:
    """Judge what needs no model: methods and post-steps by name, and every parameter that the recipe mentions."""
    main = _method(recipe.merge_method)
    faults = [] if isinstance(main, Method) else [Fault(main, recipe.merge_method_where)]
    methods = [main] if isinstance(main, Method) else []
    by_rule: dict[int, Method] = {}
    for rule in recipe.tensors:
        found = _method(rule.merge_method or recipe.merge_method)
        if isinstance(found, Method):
            by_rule.update({id(setting): found for setting in rule.parameters.values()})
            methods += [found] if found not in methods else []
        elif rule.merge_method:
            faults.append(Fault(found, rule.where))
    faults += _check_post(recipe, methods)
    if not isinstance(main, Method):
        return faults
    posts = {id(setting) for step in recipe.post for setting in step.parameters.values()}
    for name, setting, level in parameter_mentions(recipe):
        if id(setting) not in posts:
            faults += _check_mention(
                name, setting, level, [by_rule[id(setting)]] if id(setting) in by_rule else methods
            )
    return [*faults, *_check_columns(recipe, methods), *_said_twice(recipe, methods)]


def _method(name: str, *, post: bool = False) -> Method | str:
    """Return the method, or what is wrong with its name."""
    try:
        return find_method(name, post=post)
    except MethodError as error:
        return str(error)


def _check_post(recipe: Recipe, methods: Sequence[Method]) -> list[Fault]:
    faults: list[Fault] = []
    for step in recipe.post:
        declared = _method(step.name, post=True)
        if not isinstance(declared, Method):
            faults.append(Fault(declared, step.where))
            continue
        for name, setting in step.parameters.items():
            faults += _check_mention(name, setting, f"post step {step.name}", [declared])
        for name in declared.parameters:
            if name not in step.parameters and name not in declared.defaults:
                faults.append(Fault(f"post step {step.name} needs {name!r}.", step.where))
        faults += [
            Fault(
                f"post step {step.name} works on what a method adds to the base; {method.name} gives weights, not a difference.",
                step.where,
                "This is not implemented for such methods; leave `post` out.",
            )
            for method in methods
            if not method.subtracts(base=recipe.base_model is not None)
        ]
    return faults


def _check_mention(name: str, setting: Setting, level: str, methods: Sequence[Method]) -> list[Fault]:
    takers = [(method, own) for method in methods if (own := method.parameter(name))]
    if not takers:
        known = sorted({word for method in methods for word in method.parameters})
        title = " and ".join(dict.fromkeys(method.name for method in methods))
        hint = f"{did_you_mean(name, known)} It takes: {', '.join(known) or 'no parameters'}.".strip()
        return [Fault(f"{title} has no parameter {name!r} ({level}).", setting.where, hint)]
    method, own = takers[0]
    declared = method.parameters[own]
    if not declared.per_model and _is_model_level(level):
        message = f"{name!r} is one value for all models, not one a model ({level})."
        return [Fault(message, setting.where, "Set it under the recipe's `parameters`.")]
    faults = []
    for value, where in _scalars(setting):
        wrong = declared.fault(value)
        if wrong:
            faults.append(Fault(f"{method.name}: {name} = {value!r} ({level}); {wrong}.", where))
    return faults


def _is_model_level(level: str) -> bool:
    """Whether a level's label is that of one model's parameters: `model 'x'`, or `slice 1, source 'x'`."""
    return level.rsplit(", ", maxsplit=1)[-1].startswith(("model '", "source '"))


def _scalars(setting: Setting | Filtered) -> Iterator[tuple[Any, Where]]:
    entries: Any = setting.value if isinstance(setting.value, tuple) else (setting.value,)
    for entry in entries:
        if isinstance(entry, Filtered):
            yield from _scalars(entry)
        elif isinstance(entry, PerLayer):
            for column in entry.columns:
                yield from zip(column.numbers, column.places, strict=True)
        else:
            yield entry, setting.where


def _check_columns(recipe: Recipe, methods: Sequence[Method]) -> Iterator[Fault]:
    """Hold the models that numbers a layer name against those of the recipe."""
    listed = {str(given.model) for module in recipe.modules for part in module.slices for given in part.sources}
    for name, setting, level in parameter_mentions(recipe):
        for entry in entries_of(setting) or (setting,):
            named = {column.model for column in entry.value.columns} if isinstance(entry.value, PerLayer) else {None}
            if None in named:
                continue
            if _is_model_level(level) or not any(_is_per_model(method, name) for method in methods):
                message = f"{name!r} takes one number a layer here, not one for each model ({level})."
                yield Fault(message, entry.where)
                continue
            for odd in sorted(str(model) for model in named if model not in listed):
                hint = f"{did_you_mean(odd, sorted(listed))} Models: {', '.join(sorted(listed))}.".strip()
                yield Fault(
                    f"{name!r} has numbers a layer for {odd}, which is not merged ({level}).", entry.where, hint
                )
            lacking = sorted(listed - named - {str(recipe.base_model)})
            if lacking and any(method.parameter(name) in method.defaults for method in methods):
                message = f"{name!r} has no numbers a layer for {', '.join(lacking)} ({level})."
                yield Fault(message, entry.where, "Write a column for every model.")


def _is_per_model(method: Method, name: str) -> bool:
    own = method.parameter(name)
    return own is not None and method.parameters[own].per_model


def _said_twice(recipe: Recipe, methods: Sequence[Method]) -> list[Fault]:
    """Report a parameter that one level sets under both of its names."""
    seen: dict[tuple[str, str], str] = {}
    faults = []
    for name, setting, level in parameter_mentions(recipe):
        own = next((found for method in methods if (found := method.parameter(name))), name)
        other = seen.setdefault((level, own), name)
        if other != name:
            faults.append(
                Fault(f"{name!r} and {other!r} are the same parameter ({level}).", setting.where, "Keep one.")
            )
    return faults


def unmatched_filters(recipe: Recipe, known: Mapping[str, str]) -> list[Fault]:
    """Report filters that match no tensor of any input; `known` has what each is for, by name."""
    faults = []
    for entry in filters_in(recipe):
        of = {name for name, component in known.items() if entry.component in {None, component}}
        if not of:
            has = ", ".join(sorted(set(known.values())))
            faults.append(Fault(f"component {entry.component!r} matches no tensor.", entry.where, f"There are: {has}."))
        elif not any(matches(entry.filter, name) for name in of):
            words = sorted({word for name in of for word in name.split(".") if not word.isdigit()})
            hint = f"{did_you_mean(entry.filter or '', words)} Filters match part of a tensor's name.".strip()
            inside = f" of component {entry.component!r}" if entry.component else ""
            faults.append(Fault(f"filter {entry.filter!r} matches no tensor{inside}.", entry.where, hint))
    return faults


def idle_parameters(recipe: Recipe) -> tuple[list[Fault], list[str]]:
    """Return warnings of parameters that a base is given in vain, and notes on those that never do anything."""
    warnings = []
    method = find_method(recipe.merge_method)
    for module in recipe.modules:
        for part in module.slices:
            base = part.base_model or recipe.base_model
            for given in part.sources:
                if method.subtracts(base=True) and given.model == base and given.parameters:
                    names = ", ".join(given.parameters)
                    message = f"{names} of {given.model} has no effect: it is the base, and {method.name} works on differences from it."
                    warnings.append(Fault(message, next(iter(given.parameters.values())).where))
    mentioned = {name for name, _, _ in parameter_mentions(recipe)}
    notes = ["int8_mask has no effect: masks are never stored here."] if "int8_mask" in mentioned else []
    return warnings, notes
