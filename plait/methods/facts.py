"""What can be said of a method from its signature and docstring alone: the facts behind `plait methods` and the docs."""

from __future__ import annotations

import functools
import json
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plait.methods.method import Method
from plait.methods.vocabulary import Parameter

__all__ = [
    "LOCALITIES",
    "advice",
    "as_data",
    "changed",
    "cost",
    "example",
    "inputs",
    "passes",
    "short",
    "text",
    "without_advice",
]

LOCALITIES = {
    "element": "entry by entry",
    "row": "row by row",
    "span": "from the inner products of the inputs",
    "measured": "entry by entry, after something was measured",
    "matrix": "a whole tensor at once",
}
"""What each locality means, in the order in which methods are listed."""

_ADVICE = "Use it "
_COSTS = Path(__file__).with_name("costs.json")


def short(method: Method) -> str:
    """Return the summary without the shapes that may follow it.

    >>> from plait.methods import find_method
    >>> short(find_method("linear"))
    "Average the models' weights: Σ wᵢθᵢ / Σ wᵢ."
    """
    return re.sub(r"\s*`\[[^`]*\]`\.?$", "", method.summary)


def advice(method: Method) -> str:
    """Return when to use the method: the paragraph of its docstring that begins "Use it", on one line; or ""."""
    found = [one for one in _paragraphs(method) if one.startswith(_ADVICE)]
    return " ".join(" ".join(found).split())


def without_advice(method: Method) -> str:
    """Return the docstring without that paragraph."""
    return "\n\n".join(one for one in _paragraphs(method) if not one.startswith(_ADVICE))


def _paragraphs(method: Method) -> list[str]:
    return method.description.rstrip().split("\n\n")


def inputs(method: Method) -> str:
    """Say what it takes: how many models, and whether a base."""
    low, high = method.min_models, method.max_models
    count = f"{low}" if low == high else f"{low} or more" if high is None else f"{low} to {high}"
    models = "model" if high == 1 else "models"
    if method.sees.space == "deltas":
        return f"a base, and {count} {models} (the method sees their differences from the base)"
    if method.base == "origin":
        return f"{count} {models} (the method sees weights, or, with a base, differences from it)"
    if method.base == "first":
        return f"{count} models, one of which is `base_model` (the method sees weights)"
    return f"{count} {models} (the method sees weights)"


def passes(method: Method) -> str:
    """Say how often the inputs are read."""
    if method.locality == "span":
        return "two: one for the inner products, one for the weighted sum"
    if method.measured:
        rounds = [" with ".join(name.replace("_", " ") for name in names) for names in method.rounds]
        return f"one, and before it one for each that its parameters call for of: {', '.join(rounds)}"
    return "one"


def changed(method: Method, name: str) -> list[tuple[str, str]]:
    """Return each variant that changes a parameter's default, and to what."""
    return [(variant, text(values[name])) for variant, values in method.variant_defaults.items() if name in values]


def text(value: Any) -> str:
    """Write a parameter's value as a recipe does.

    >>> text(True), text(1.0), text("l1"), text(None)
    ('true', '1', 'l1', 'not set')
    """
    if value is None:
        return "not set"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


@functools.cache
def _costs() -> Mapping[str, Mapping[str, float]]:
    if not _COSTS.is_file():
        return {}
    found: Mapping[str, Mapping[str, float]] = json.loads(_COSTS.read_text(encoding="utf-8"))["ns"]
    return found


def cost(method: Method) -> dict[int, float]:
    """Return the measured nanoseconds a parameter by number of models; empty where it was not measured."""
    return {int(models): value for models, value in _costs().get(method.name, {}).items()}


def example(method: Method, models: tuple[str, ...] = (), base: str = "org/base", wanted: int = 2) -> str:
    """Write a minimal recipe for the method, of as many of the named models as are wanted and it takes."""
    known = models or tuple(f"org/model-{letter}" for letter in string.ascii_lowercase)
    count = min(max(wanted, method.min_models), method.max_models or len(known))
    listed = [base, *known[: count - 1]] if method.base == "first" else list(known[:count])
    required = {name: _some(p) for name, p in method.parameters.items() if name not in method.defaults}
    each = {name: value for name, value in required.items() if method.parameters[name].per_model}
    lines = ["models:"]
    for model in listed:
        lines.append(f"  - model: {model}")
        if each:
            lines += ["    parameters:", *(f"      {name}: {value}" for name, value in each.items())]
    lines.append(f"merge_method: {method.name}")
    if method.base in {"required", "first"}:
        lines.append(f"base_model: {base}")
    shared = {name: value for name, value in required.items() if name not in each}
    if shared:
        lines += ["parameters:", *(f"  {name}: {value}" for name, value in shared.items())]
    return "\n".join(lines)


def _some(declared: Parameter) -> str:
    """Write a value that the parameter takes."""
    tried = [*declared.choices, True, 0.5, 1, declared.low, declared.high]
    return text(next(value for value in tried if value is not None and not declared.fault(value)))


def as_data(method: Method) -> dict[str, Any]:
    """Return everything about a method as plain data."""
    return {
        "name": method.name,
        "summary": short(method),
        "description": without_advice(method),
        "when": advice(method),
        "paper": method.paper,
        "locality": method.locality,
        "passes": passes(method),
        "sees": method.sees.space,
        "base": method.base,
        "min_models": method.min_models,
        "max_models": method.max_models,
        "random": method.random is not None,
        "parameters": [_parameter(method, name, declared) for name, declared in method.parameters.items()],
        "variants": {variant: dict(values) for variant, values in method.variant_defaults.items()},
        "recipe": example(method),
        "ns_per_parameter": {str(models): value for models, value in cost(method).items()},
    }


def _parameter(method: Method, name: str, declared: Parameter) -> dict[str, Any]:
    return {
        "name": name,
        "also": declared.also or None,
        "type": declared.kind.__name__,
        "per_model": declared.per_model,
        "low": declared.low,
        "high": declared.high,
        "choices": list(declared.choices),
        "required": name not in method.defaults,
        "default": method.defaults.get(name),
        "summary": declared.summary,
    }
