"""What `plait methods` and docs/methods.md say, read off the methods themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from plait.methods.facts import (
    LOCALITIES,
    advice,
    changed,
    cost,
    example,
    inputs,
    passes,
    short,
    text,
    without_advice,
)
from plait.methods.method import Method, MethodError, find_method, method_names
from plait.methods.vocabulary import Parameter

__all__ = ["as_markdown", "describe", "listing"]

_NARROW = 60
_LABEL = 10


def listing(width: int | None = None) -> str:
    """Return all methods by locality, a line each, then the post-steps.

    `width` is that of the terminal: lines are then cut to it or, where that would leave too little, broken.
    """
    methods = [find_method(name) for name in method_names()]
    steps = [find_method(name, post=True) for name in method_names(post=True)]
    column = max(len(method.name) for method in (*methods, *steps)) + 4
    groups = {
        f"{locality}: {meaning}": [method for method in methods if method.locality == locality]
        for locality, meaning in LOCALITIES.items()
    }
    groups["Steps for `post:`"] = steps
    lines = []
    for title, members in groups.items():
        if members:
            lines += ["", *_filled(title, width)]
            lines += [line for method in members for line in _entry(method, column, width)]
    return "\n".join(lines[1:])


def _entry(method: Method, column: int, width: int | None) -> list[str]:
    summary = short(method)
    if width is not None and width < _NARROW:
        return [f"  {method.name}", *_filled(summary, width, "    ")]
    if width is not None:
        summary = textwrap.shorten(summary, width - column - 1, placeholder=" …")
    return [f"{'  ' + method.name:{column}}{summary}"]


def _filled(line: str, width: int | None, indent: str = "", hanging: str | None = None) -> list[str]:
    """Break one line at spaces, but for a recipe's lines and addresses, which stay whole."""
    if width is None:
        return [indent + line]
    return textwrap.wrap(
        line,
        max(20, width),
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def describe(name: str, width: int | None = None) -> str:
    """Return everything about one method (or post-step): formula, needs, parameters, when to use it, a recipe, its cost.

    Lines are broken at `width`. Raises MethodError, with the nearest name, when there is none of that name.
    """
    try:
        method = find_method(name)
    except MethodError:
        if name not in method_names(post=True):
            raise
        method = find_method(name, post=True)
    lines = [method.name, "", *_paragraphs(without_advice(method), width)]
    if advice(method):
        lines += ["", *_filled(advice(method), width)]
    lines += ["", *_facts(method, width), "", "Parameters"]
    told = [line for key, p in method.parameters.items() for line in _parameter(method, key, p, width)]
    lines += told or ["  none"]
    if method.paper:
        lines += ["", "Recipe", *(f"  {line}" for line in example(method).splitlines())]
    return "\n".join(lines)


def _facts(method: Method, width: int | None) -> list[str]:
    if not method.paper:  # a post-step
        return _fact("Step", "for `post:`, after the method", width)
    lines = _fact("Source", method.paper, width)
    lines += _fact("Inputs", inputs(method), width)
    lines += _fact("Locality", f"{method.locality}: {LOCALITIES[method.locality]}", width)
    for values, other in method.variants:
        chosen = ", ".join(f"{key}: {text(value)}" for key, value in values.items())
        lines += _fact("", f"{other.locality} with {chosen}", width)
    lines += _fact("Passes", passes(method), width)
    return lines + (_fact("Cost", _cost(method), width) if cost(method) else [])


def _fact(label: str, value: str, width: int | None) -> list[str]:
    return _filled(f"{label:{_LABEL}}{value}", width, hanging=" " * _LABEL)


def _cost(method: Method) -> str:
    told = [f"{value:.2g} for {models} model{'s' * (models > 1)}" for models, value in cost(method).items()]
    return f"{', '.join(told)}, in ns a parameter on one thread"


def _paragraphs(whole: str, width: int | None) -> list[str]:
    if width is None:
        return whole.splitlines()
    lines: list[str] = []
    for paragraph in whole.split("\n\n"):
        parts = paragraph.splitlines()
        listed = any(part.startswith((" ", "-", "*")) for part in parts)
        broken = [_filled(part, width, hanging="  ") for part in parts] if listed else [_filled(" ".join(parts), width)]
        lines += ["", *(line for part in broken for line in part)]
    return lines[1:]


def _parameter(method: Method, name: str, declared: Parameter, width: int | None) -> list[str]:
    default = f"default {text(method.defaults[name])}" if name in method.defaults else "required"
    default += "".join(f", {value} with variant: {variant}" for variant, value in changed(method, name))
    each = ", one a model" if declared.per_model else ""
    also = f", also `{declared.also}`" if declared.also else ""
    takes = _filled(f"{name}  {declared.range_text()}{each}; {default}{also}", width, "  ", "    ")
    return [*takes, *_filled(declared.summary, width, " " * 6)]


def as_markdown() -> str:
    """Write the page of all methods and post-steps: a table, then each with its parameters and a recipe."""
    methods = [find_method(name) for name in method_names()]
    steps = [find_method(name, post=True) for name in method_names(post=True)]
    table = [f"| [`{m.name}`](#{m.name}) | {inputs(m)} | {m.locality} | {_cell(short(m))} |" for m in methods]
    parts = [
        "# Methods",
        "Written by `make docs` from the methods themselves. `plait methods NAME` prints the same.",
        "\n".join(["| Method | Inputs | Locality | In a line |", "|---|---|---|---|", *table]),
        (
            "*Locality* is what a method must see at once: an `element` of every input, a `row`, the whole `matrix`, only the "
            "inner products of the inputs (`span`), or also something `measured` in a pass beforehand. It decides how the "
            "tensors are read, never what comes out."
        ),
        (
            "*Cost* is the time of a whole merge of bfloat16 models on one thread, inputs and output in memory, in "
            "nanoseconds for each parameter of the output. `benchmarks/method_costs.py` measures it, and says on what "
            "machine; half of the entries are kept where there is a density. It grows with the number of models; where "
            "inner products are taken, which are of all pairs, with more than that.\n\n"
            "![Cost by number of models, for each locality](cost.png)"
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
        f"With {', '.join(f'`{key}: {text(value)}`' for key, value in values.items())} its locality is {other.locality}."
        for values, other in method.variants
    ]
    facts = [f"Source: <{method.paper}>.", f"Inputs: {inputs(method)}.", *variants, f"Passes: {passes(method)}."]
    facts += [f"Cost: {_cost(method)}."] if cost(method) else []
    recipe = f"```yaml\n{example(method)}\n```"
    parts = [
        f"## {method.name}",
        without_advice(method),
        advice(method),
        " ".join(facts),
        _parameter_table(method),
        recipe,
    ]
    return "\n\n".join(part for part in parts if part)


def _parameter_table(method: Method) -> str:
    if not method.parameters:
        return "It takes no parameters."
    rows = ["| Parameter | Takes | Default | |", "|---|---|---|---|"]
    for name, declared in method.parameters.items():
        also = f" or `{declared.also}`" if declared.also else ""
        takes = declared.range_text() + (", one a model" if declared.per_model else "")
        default = f"`{text(method.defaults[name])}`" if name in method.defaults else "required"
        default += "".join(f"; {variant}: `{value}`" for variant, value in changed(method, name))
        rows.append("| " + " | ".join([f"`{name}`{also}", *_cells([takes, default, declared.summary])]) + " |")
    return "\n".join(rows)


def _cells(texts: Iterable[str]) -> list[str]:
    return [_cell(one) for one in texts]


def _cell(one: str) -> str:
    return one.replace("|", "\\|")
