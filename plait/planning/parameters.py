"""From what a recipe says about parameters to the numbers that a method is given for one tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plait.errors import Fault, Where, did_you_mean
from plait.methods import Method, MethodError, Parameter, find_method
from plait.planning.types import Explained
from plait.recipe import Resolved, filters_in, matches, parameter_mentions, resolve
from plait.recipe.types import Filtered, Recipe, Setting

__all__ = ["Levels", "Missing", "check_document", "effective", "idle_parameters", "unmatched_filters"]

Levels = Sequence[tuple[str, Mapping[str, Setting]]]


@dataclass
class Missing:
    """Required parameters that had no value: (method, parameter, model) -> names of tensors."""

    tensors: dict[tuple[str, str, str | None], list[str]] = field(default_factory=dict)

    def faults(self, recipe: Recipe) -> Iterator[Fault]:
        """One fault for each parameter and model."""
        for (method, parameter, model), names in self.tensors.items():
            of = f" for {model}" if model else ""
            tensors = f"{len(names)} tensors, such as {names[0]}" if len(names) > 1 else names[0]
            places = (
                "under the model's own `parameters` or the recipe's" if model else "under the recipe's `parameters`"
            )
            message = f"{method} needs {parameter!r}{of}; nothing sets it for {tensors}."
            yield Fault(message, recipe.merge_method_where, f"Set it {places}.")


def effective(
    method: Method,
    tensor: str,
    t: float,
    *,
    shared: Levels,
    models: Sequence[tuple[str, str, Levels]],
    missing: Missing,
    explain: bool = False,
) -> tuple[dict[str, Any], tuple[Explained, ...]]:
    """Return a method's parameters for one tensor, and, on demand, why each has its value.

    `shared` are the levels that hold for all models, highest first; `models` has, for each entry of the stack, its
    name, its tensor's own name (which filters see, as in mergekit) and its levels. A value that `check_document`
    finds at fault is passed over.
    """
    values: dict[str, Any] = {}
    explained: list[Explained] = []
    variant = _variant(method, tensor, t, shared)
    defaults = method.defaults_of(variant)
    for name, declared in method.parameters.items():
        asked = models if declared.per_model else [("", tensor, shared)]
        numbers = []
        for model, own_name, levels in asked:
            found = _resolve(name, declared, own_name, t, levels)
            if found is not None and not declared.fault(found.value):
                value = declared.read(found.value)
            elif name in defaults:
                value = defaults[name]
            else:
                value = 1.0 if declared.kind is float else declared.kind()
                if found is None:
                    missing.tensors.setdefault((method.name, name, model or None), []).append(tensor)
            numbers.append(value)
            if explain:
                rule = _rule(found, variant if name in method.variant_defaults.get(variant, {}) else "")
                explained.append(Explained(name, model or None, value, rule))
        values[name] = tuple(float(number) for number in numbers) if declared.per_model else numbers[0]
    if method.variant_defaults:
        del values["variant"]  # it has had its effect
    return values, tuple(explained)


def _variant(method: Method, tensor: str, t: float, shared: Levels) -> str:
    """Whose defaults the recipe asks for; "" for a method that has no variants."""
    if not method.variant_defaults:
        return ""
    declared = method.parameters["variant"]
    found = _resolve("variant", declared, tensor, t, shared)
    return str(method.defaults["variant"] if found is None or declared.fault(found.value) else found.value)


def _rule(found: Resolved | None, variant: str) -> str:
    if found is None:
        return f"default of variant {variant}" if variant else "default"
    return f"{found.where}, {found.level}" + (f": {found.note}" if found.note else "")


def _resolve(name: str, declared: Parameter, tensor: str, t: float, levels: Levels) -> Resolved | None:
    for level in levels:
        for word in (name, declared.also):
            if word and word in level[1]:
                found = resolve(word, tensor, t, (level,))
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
    return faults + _said_twice(recipe, methods)


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


def _scalars(setting: Setting) -> Iterator[tuple[Any, Where]]:
    entries: Any = setting.value if isinstance(setting.value, tuple) else (setting.value,)
    for entry in entries:
        if isinstance(entry, Filtered):
            inner: Any = entry.value if isinstance(entry.value, tuple) else (entry.value,)
            for value in inner:
                yield value, entry.where
        else:
            yield entry, setting.where


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


def unmatched_filters(recipe: Recipe, names: Iterable[str]) -> list[Fault]:
    """Report filters that match no tensor of any input."""
    known = tuple(dict.fromkeys(names))
    faults = []
    for entry in filters_in(recipe):
        if not any(matches(entry.filter, name) for name in known):
            words = sorted({word for name in known for word in name.split(".") if not word.isdigit()})
            hint = f"{did_you_mean(entry.filter or '', words)} Filters match part of a tensor's name.".strip()
            faults.append(Fault(f"filter {entry.filter!r} matches no tensor.", entry.where, hint))
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
