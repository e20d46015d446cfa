"""From what a recipe says about parameters to the numbers that a method is given for one tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plait.errors import Fault, did_you_mean
from plait.methods import Method, MethodError, Parameter, find_method
from plait.planning.types import Explained
from plait.recipe import Resolved, filters_in, matches, parameter_mentions, resolve
from plait.recipe.types import Filtered, Recipe, Setting

__all__ = ["Levels", "Missing", "check_parameters", "check_post", "effective", "unmatched_filters"]

Levels = Sequence[tuple[str, Mapping[str, Setting]]]


@dataclass
class Missing:
    """Required parameters that had no value: (parameter, model) -> names of tensors."""

    tensors: dict[tuple[str, str | None], list[str]] = field(default_factory=dict)

    def faults(self, recipe: Recipe, method: str) -> Iterable[Fault]:
        """One fault for each parameter and model."""
        for (parameter, model), names in self.tensors.items():
            of = f" for {model}" if model else ""
            where = f"{len(names)} tensors, such as {names[0]}" if len(names) > 1 else names[0]
            hint = f"Set it under {'that model’s `parameters` or ' if model else ''}the recipe's `parameters`."
            yield Fault(
                f"{method} needs {parameter!r}{of}; nothing sets it for {where}.", recipe.merge_method_where, hint
            )


def effective(
    method: Method, tensor: str, t: float, *, shared: Levels, models: Sequence[tuple[str, str, Levels]], missing: Missing
) -> tuple[dict[str, Any], tuple[Explained, ...]]:
    """Return a method's parameters for one tensor, and why each has its value.

    `shared` are the levels that hold for all models, highest first; `models` has, for each entry of the stack, its
    name, its tensor's own name (which filters see, as in mergekit) and its levels.
    """
    values: dict[str, Any] = {}
    explained: list[Explained] = []
    for name, declared in method.parameters.items():
        asked = models if declared.per_model else [("", tensor, shared)]
        numbers = []
        for model, own_name, levels in asked:
            found = _resolve(name, declared, own_name, t, levels)
            if found is None and name not in method.defaults:
                missing.tensors.setdefault((name, model or None), []).append(tensor)
                numbers.append(1.0 if declared.kind is float else declared.kind())
                continue
            value = declared.read(found.value) if found else method.defaults[name]
            numbers.append(value)
            rule = f"{found.where}, {found.level}{': ' + found.note if found.note else ''}" if found else "default"
            explained.append(Explained(name, model or None, value, rule))
        values[name] = tuple(float(number) for number in numbers) if declared.per_model else numbers[0]
    return values, tuple(explained)


def _resolve(name: str, declared: Parameter, tensor: str, t: float, levels: Levels) -> Resolved | None:
    for level in levels:
        for word in (name, declared.also):
            if word and word in level[1]:
                found = resolve(word, tensor, t, (level,))
                if found is not None:
                    return found
    return None


def check_parameters(recipe: Recipe) -> list[Fault]:
    """Judge every parameter that the recipe mentions: known to a method that it uses, and in range."""
    faults: list[Fault] = []
    methods: dict[str, Method] = {}
    wanted = [(recipe.merge_method, recipe.merge_method_where)]
    wanted += [(rule.merge_method, rule.where) for rule in recipe.tensors if rule.merge_method]
    for name, where in wanted:
        try:
            methods[name] = find_method(name)
        except MethodError as error:
            faults.append(Fault(str(error), where))
    if not faults:
        posts = {id(setting) for step in recipe.post for setting in step.parameters.values()}
        for name, setting, level in parameter_mentions(recipe):
            if id(setting) not in posts:
                faults += _check_mention(name, setting, level, list(methods.values()))
    return faults


def check_post(recipe: Recipe) -> list[Fault]:
    """Judge the post-steps and their parameters."""
    faults: list[Fault] = []
    for step in recipe.post:
        try:
            declared = find_method(step.name, post=True)
        except MethodError as error:
            faults.append(Fault(str(error), step.where))
            continue
        for name, setting in step.parameters.items():
            faults += _check_mention(name, setting, f"post step {step.name}", [declared])
        for name in declared.parameters:
            if name not in step.parameters and name not in declared.defaults:
                faults.append(Fault(f"post step {step.name} needs {name!r}.", step.where))
    return faults


def _check_mention(name: str, setting: Setting, level: str, methods: Sequence[Method]) -> list[Fault]:
    takers = [(method, own) for method in methods if (own := method.parameter(name))]
    if not takers:
        known = sorted({word for method in methods for word in method.parameters})
        title = " and ".join(method.name for method in methods)
        hint = f"{did_you_mean(name, known)} It takes: {', '.join(known) or 'no parameters'}.".strip()
        return [Fault(f"{title} has no parameter {name!r} ({level}).", setting.where, hint)]
    method, own = takers[0]
    declared = method.parameters[own]
    if "]" in level.split(".")[0] and not declared.per_model and _is_model_level(level):
        message = f"{name!r} is one number for all models, not one a model ({level})."
        return [Fault(message, setting.where, "Set it under the recipe's `parameters`.")]
    faults = []
    for value, where in _scalars(setting):
        wrong = declared.fault(value)
        if wrong:
            faults.append(Fault(f"{method.name}: {name} = {value!r} ({level}); {wrong}.", where))
    return faults


def _is_model_level(level: str) -> bool:
    return "models[" in level or "sources[" in level


def _scalars(setting: Setting) -> Iterable[tuple[Any, Any]]:
    entries: Any = setting.value if isinstance(setting.value, tuple) else (setting.value,)
    for entry in entries:
        if isinstance(entry, Filtered):
            inner: Any = entry.value if isinstance(entry.value, tuple) else (entry.value,)
            for value in inner:
                yield value, entry.where
        else:
            yield entry, setting.where


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
