"""From a setting to the number: gradients, filters, and which level of the recipe wins."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from plait.recipe.types import Column, Filtered, PerLayer, Scalar, Setting, Settings, TensorRule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.errors import Where

__all__ = ["Level", "Resolved", "entries_of", "evaluate", "matches", "resolve", "rule_text", "takes"]

Level = tuple[str, Settings]
"""A level of the recipe: what to call it, and its parameters."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The value of a parameter for one tensor, and why: the line, the level, and what was done there."""

    value: Scalar
    where: Where
    level: str
    note: str = ""
    """As "gradient [0, 0.5, 1] at t=0.25" or "filter 'self_attn'"; empty for a plain value."""
    layers: int | None = None
    """For a value written as numbers a layer: how many there are."""


def matches(wanted: str | None, tensor_name: str) -> bool:
    """Whether a filter takes in a tensor: None and "*" match all, anything else must be part of the name.

    >>> matches("self_attn", "model.layers.0.self_attn.q_proj.weight")
    True
    """
    return wanted is None or wanted == "*" or wanted in tensor_name


def takes(rule: TensorRule, tensor_name: str, component: str = "") -> bool:
    """Whether a rule of `tensors:` is for an output tensor; `component` is what the tensor is for."""
    return (
        (rule.match is None or fnmatchcase(tensor_name, rule.match))
        and (rule.regex is None or re.search(rule.regex, tensor_name) is not None)
        and (rule.component is None or rule.component == component)
    )


def rule_text(rule: TensorRule) -> str:
    """Name a rule by its selectors, as `'*.mlp.*'` or `regex 'q_proj' and component 'attention'`."""
    parts = [f"'{rule.match}'"] if rule.match is not None else []
    parts += [f"regex '{rule.regex}'"] if rule.regex is not None else []
    return " and ".join(parts + ([f"component '{rule.component}'"] if rule.component is not None else []))


def evaluate(
    setting: Setting, tensor_name: str, t: float, *, component: str = "", model: str = ""
) -> tuple[Scalar, Where] | None:
    """Return the value of `setting` for one tensor, and the line that gave it.

    A scalar is itself. A list of numbers is a gradient: piecewise linear over its values, spread evenly over
    [0, 1], always a float, never outside its neighbours, and at t=1 exactly the last value. Of a list of text or
    flags, element floor(t (n - 1)). Of n numbers a layer, that of layer t (n - 1). Of filtered values, the first whose
    filter and component match.

    Args:
        setting: The parameter's value at one level of the recipe.
        tensor_name: The output tensor, for the filters.
        t: Position of its layer within its slice, in [0, 1].
        component: What the tensor is for, one of `COMPONENTS`.
        model: The model that is asked for, where numbers a layer differ from model to model.

    Returns:
        None when no filter matches, or there are no numbers for the model: then the next level is asked.

    Raises:
        ValueError: `t` is not in [0, 1].
    """
    if not 0 <= t <= 1:
        raise ValueError(f"t must be in [0, 1], not {t}.")
    entry = _chosen(setting, tensor_name, component)
    if entry is None:
        return None
    if isinstance(entry.value, PerLayer):
        column = _column(entry.value, model)
        return None if column is None else (column.numbers[_layer(column, t)], entry.where)
    return _at(entry.value, t), entry.where


def resolve(
    name: str, tensor_name: str, t: float, levels: Sequence[Level], *, component: str = "", model: str = ""
) -> Resolved | None:
    """Return the value of parameter `name` from the first of `levels` that gives one, highest precedence first.

    Args:
        name: The parameter.
        tensor_name: The output tensor, for the filters.
        t: Position of its layer within its slice, in [0, 1].
        levels: As `plait.recipe.levels_of` returns them.
        component: What the tensor is for, one of `COMPONENTS`.
        model: The model that is asked for, where numbers a layer differ from model to model.

    Returns:
        None when no level gives a value: then the method's default holds.
    """
    for label, settings in levels:
        if name not in settings:
            continue
        setting = settings[name]
        answer = evaluate(setting, tensor_name, t, component=component, model=model)
        entry = _chosen(setting, tensor_name, component)
        if answer is not None and entry is not None:
            column = _column(entry.value, model) if isinstance(entry.value, PerLayer) else None
            count = None if column is None else len(column.numbers)
            return Resolved(*answer, label, _note(setting, entry, t, model), count)
    return None


def _column(value: PerLayer, model: str) -> Column | None:
    return next((column for column in value.columns if column.model in {None, model}), None)


def _layer(column: Column, t: float) -> int:
    return round(t * (len(column.numbers) - 1))


def entries_of(setting: Setting) -> tuple[Filtered, ...]:
    """The filtered entries of a setting; none when it is a plain value or a gradient."""
    value = setting.value
    return tuple(part for part in value if isinstance(part, Filtered)) if isinstance(value, tuple) else ()


def _chosen(setting: Setting, tensor_name: str, component: str) -> Filtered | None:
    """The entry that holds for the tensor; a plain value or gradient is one entry that matches all."""
    value = setting.value
    if isinstance(value, tuple):
        entries = entries_of(setting)
        if entries:
            found = (entry for entry in entries if matches(entry.filter, tensor_name))
            return next((entry for entry in found if entry.component in {None, component}), None)
        value = tuple(part for part in value if not isinstance(part, Filtered))
    return Filtered(None, value, setting.where)


def _at(value: Scalar | tuple[Scalar, ...], t: float) -> Scalar:
    if not isinstance(value, tuple):
        return value
    numbers = [float(part) for part in value if isinstance(part, (int, float)) and not isinstance(part, bool)]
    scaled = t * (len(value) - 1)
    low = int(scaled)
    if len(numbers) < len(value):
        return value[low]
    before, after = numbers[low], numbers[min(low + 1, len(numbers) - 1)]
    between = (1 - (scaled - low)) * before + (scaled - low) * after
    # Rounding may step one unit outside: a gradient [1, 1] must give 1, and a density stay a density.
    return min(max(between, min(before, after)), max(before, after))


def _note(setting: Setting, entry: Filtered, t: float, model: str) -> str:
    parts = []
    if entries_of(setting):
        parts += [f"filter '{entry.filter}'"] if entry.filter is not None else []
        parts += [f"component '{entry.component}'"] if entry.component is not None else []
        parts = parts or ["no filter"]
    if isinstance(entry.value, PerLayer) and (column := _column(entry.value, model)):
        at = _layer(column, t)
        place = f"{column.places[at]}, " if entry.value.file else ""
        parts.append(f"{place}layer {at} of {len(column.numbers)}")
    if isinstance(entry.value, tuple):
        kind = "list" if any(isinstance(part, (bool, str)) for part in entry.value) else "gradient"
        parts.append(f"{kind} [{', '.join(_written(part) for part in entry.value)}] at t={t:g}")
    return ", ".join(parts)


def _written(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:.12g}"
