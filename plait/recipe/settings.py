"""From a setting to the number: gradients, filters, and which level of the recipe wins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from plait.recipe.types import Filtered, Scalar, Setting, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.errors import Where

__all__ = ["Level", "Resolved", "entries_of", "evaluate", "matches", "resolve"]

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


def matches(wanted: str | None, tensor_name: str) -> bool:
    """Whether a filter takes in a tensor: None and "*" match all, anything else must be part of the name.

    >>> matches("self_attn", "model.layers.0.self_attn.q_proj.weight")
    True
    """
    return wanted is None or wanted == "*" or wanted in tensor_name


def evaluate(setting: Setting, tensor_name: str, t: float) -> tuple[Scalar, Where] | None:
    """Return the value of `setting` for one tensor, and the line that gave it.

    A scalar is itself. A list of numbers is a gradient: piecewise linear over its values, spread evenly over
    [0, 1], always a float, never outside its neighbours, and at t=1 exactly the last value. Of a list of text or
    flags, element floor(t (n - 1)). Of filtered values, the first whose filter matches.

    Args:
        setting: The parameter's value at one level of the recipe.
        tensor_name: The output tensor, for the filters.
        t: Position of its layer within its slice, in [0, 1].

    Returns:
        None when no filter matches: then the next level is asked.

    Raises:
        ValueError: `t` is not in [0, 1].
    """
    if not 0 <= t <= 1:
        raise ValueError(f"t must be in [0, 1], not {t}.")
    entry = _chosen(setting, tensor_name)
    return None if entry is None else (_at(entry.value, t), entry.where)


def resolve(name: str, tensor_name: str, t: float, levels: Sequence[Level]) -> Resolved | None:
    """Return the value of parameter `name` from the first of `levels` that gives one, highest precedence first.

    Args:
        name: The parameter.
        tensor_name: The output tensor, for the filters.
        t: Position of its layer within its slice, in [0, 1].
        levels: As `plait.recipe.levels_of` returns them.

    Returns:
        None when no level gives a value: then the method's default holds.
    """
    for label, settings in levels:
        if name not in settings:
            continue
        answer = evaluate(settings[name], tensor_name, t)
        if answer is not None:
            return Resolved(*answer, label, _note(settings[name], tensor_name, t))
    return None


def entries_of(setting: Setting) -> tuple[Filtered, ...]:
    """The filtered entries of a setting; none when it is a plain value or a gradient."""
    value = setting.value
    return tuple(part for part in value if isinstance(part, Filtered)) if isinstance(value, tuple) else ()


def _chosen(setting: Setting, tensor_name: str) -> Filtered | None:
    """The entry that holds for the tensor; a plain value or gradient is one entry that matches all."""
    value = setting.value
    if isinstance(value, tuple):
        entries = entries_of(setting)
        if entries:
            return next((entry for entry in entries if matches(entry.filter, tensor_name)), None)
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


def _note(setting: Setting, tensor_name: str, t: float) -> str:
    entry = _chosen(setting, tensor_name)
    parts = []
    if entry is not None and entries_of(setting):
        parts.append("no filter" if entry.filter is None else f"filter '{entry.filter}'")
    if entry is not None and isinstance(entry.value, tuple):
        kind = "list" if any(isinstance(part, (bool, str)) for part in entry.value) else "gradient"
        parts.append(f"{kind} [{', '.join(_written(part) for part in entry.value)}] at t={t:g}")
    return ", ".join(parts)


def _written(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:.12g}"
