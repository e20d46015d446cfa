"""What `plait methods` prints, read off the methods themselves."""

from __future__ import annotations

from typing import Any

from plait.methods.method import Method, find_method, method_names
from plait.methods.vocabulary import Parameter

__all__ = ["as_markdown", "describe", "example", "listing"]


def listing() -> str:
    """Return one line a method: its name, locality and summary; then the post-steps."""
    names = method_names()
    width = max(len(name) for name in names)
    lines = [f"{name:{width}}  {find_method(name).locality:8}  {find_method(name).summary}" for name in names]
    post = [f"{name:{width}}  {'post':8}  {find_method(name, post=True).summary}" for name in method_names(post=True)]
    return "\n".join([*lines, "", "Steps for `post:`", *post])


def describe(name: str) -> str:
    """Return everything about one method: description, source, inputs, parameters, a recipe that runs.

    Raises MethodError, with the nearest name, when there is none of that name.
    """
    method = find_method(name)
    lines = [method.name, "", method.description, "", f"Source    {method.paper}", f"Locality  {method.locality}"]
    for values, other in method.variants:
        chosen = ", ".join(f"{key}: {_text(value)}" for key, value in values.items())
        lines.append(f"          {other.locality} with {chosen}")
    lines += [f"Inputs    {_inputs(method)}", "", "Parameters"]
    lines += [f"  {line}" for key, p in method.parameters.items() for line in _parameter(method, key, p)] or ["  none"]
    return "\n".join([*lines, "", "Recipe", *(f"  {line}" for line in example(method).splitlines())])


def as_markdown() -> str:
    """Write the page of all methods and post-steps: a table, then each with its parameters and a recipe."""
    methods = [find_method(name) for name in method_names()]
    steps = [find_method(name, post=True) for name in method_names(post=True)]
    table = [f"| [`{m.name}`](#{m.name}) | {_inputs(m)} | {m.locality} | {_cell(m.summary)} |" for m in methods]
    parts = [
        "# Methods",
        "Written by `make docs` from the methods themselves. `plait methods NAME` prints the same.",
        "\n".join(["| Method | Inputs | Locality | In a line |", "|---|---|---|---|", *table]),
        (
            "*Locality* is what a method must see at once: an `element` of every input, a `row`, the whole `matrix`, only the "
            "inner products of the inputs (`span`), or also something `measured` in a pass beforehand. It decides how the "
            "tensors are read, never what comes out."
        ),
        *(_method_page(method) for method in methods),
        "## Post-steps",
        (
            "Applied in order, by `post:`, to what the method merged: to the delta where it works on deltas, else to the "
            "weights."
        ),
        *(f"### {step.name}\n\n{step.description}\n\n{_parameter_table(step)}" for step in steps),
    ]
    return "\n\n".join(parts) + "\n"


def _method_page(method: Method) -> str:
    variants = [
        f"With {', '.join(f'`{key}: {_text(value)}`' for key, value in values.items())} its locality is {other.locality}."
        for values, other in method.variants
    ]
    facts = [f"Source: <{method.paper}>.", f"Inputs: {_inputs(method)}.", *variants]
    recipe = f"```yaml\n{example(method)}\n```"
    return "\n\n".join([f"## {method.name}", method.description, " ".join(facts), _parameter_table(method), recipe])


def _parameter_table(method: Method) -> str:
    if not method.parameters:
        return "It takes no parameters."
    rows = ["| Parameter | Takes | Default | |", "|---|---|---|---|"]
    for name, declared in method.parameters.items():
        also = f" or `{declared.also}`" if declared.also else ""
        takes = declared.range_text() + (", one a model" if declared.per_model else "")
        default = f"`{_text(method.defaults[name])}`" if name in method.defaults else "required"
        default += "".join(f"; {variant}: `{value}`" for variant, value in _changed(method, name))
        rows.append(f"| `{name}`{also} | {_cell(takes)} | {default} | {_cell(declared.summary)} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _inputs(method: Method) -> str:
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


def _parameter(method: Method, name: str, declared: Parameter) -> list[str]:
    default = f"default {_text(method.defaults[name])}" if name in method.defaults else "required"
    default += "".join(f", {value} with variant: {variant}" for variant, value in _changed(method, name))
    each = ", one a model" if declared.per_model else ""
    also = f", also `{declared.also}`" if declared.also else ""
    return [f"{name}  {declared.range_text()}{each}; {default}{also}", f"    {declared.summary}"]


def _changed(method: Method, name: str) -> list[tuple[str, str]]:
    """Each variant that changes the parameter's default, and to what."""
    return [(variant, _text(values[name])) for variant, values in method.variant_defaults.items() if name in values]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def example(method: Method, models: tuple[str, ...] = ("org/model-a", "org/model-b"), base: str = "org/base") -> str:
    """Write a minimal recipe for the method that runs on the named models."""
    needs_base = method.base in {"required", "first"}
    count = max(1, min(len(models), method.max_models or len(models)))
    listed = [base, *models[: count - 1]] if method.base == "first" else list(models[: max(count, 1)])
    lines = ["models:"]
    required = [name for name in method.parameters if name not in method.defaults]
    for model in listed:
        lines.append(f"  - model: {model}")
        each = [name for name in required if method.parameters[name].per_model]
        if each:
            lines += ["    parameters:", *(f"      {name}: 0.5" for name in each)]
    lines.append(f"merge_method: {method.name}")
    if needs_base:
        lines.append(f"base_model: {base}")
    shared = [name for name in required if not method.parameters[name].per_model]
    if shared:
        lines += ["parameters:", *(f"  {name}: 0.5" for name in shared)]
    return "\n".join(lines)
