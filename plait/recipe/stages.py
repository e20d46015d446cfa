"""The documents of one file as stages: which uses which, in what order they run, which is the final one."""

from __future__ import annotations

import graphlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from plait.errors import Fault, did_you_mean
from plait.recipe.mentions import model_mentions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plait.recipe.document import Page
    from plait.recipe.types import ModelRef, Recipe

__all__ = ["in_order"]

Uses = dict[int, list[int]]


def in_order(page: Page, recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """Order the documents so that each comes after those it uses, else as in the file, and the final one last.

    Cycles, names given twice, a second document without a name and stages that nothing uses are put on the page
    as faults; the order is then not to be relied on.
    """
    if len(recipes) <= 1 and not any(recipe.name for recipe in recipes):
        return tuple(recipes)
    names = _names(page, recipes)
    _check_references(page, recipes, names)
    uses = {i: _used_by(recipe, names) for i, recipe in enumerate(recipes)}
    if _check_cycles(page, recipes, uses):
        return ()
    order = _sorted(uses)
    unnamed = [i for i in order if recipes[i].name is None]
    order = [i for i in order if i not in unnamed] + unnamed
    if not page.faults:  # a misspelt key may hide a use, so this is only said of an otherwise sound file
        _check_unused(page, recipes, uses, order)
    return tuple(_with_warnings(recipes[i], names) for i in order)


def _names(page: Page, recipes: Sequence[Recipe]) -> dict[str, int]:
    names: dict[str, int] = {}
    unnamed: Recipe | None = None
    for i, recipe in enumerate(recipes):
        if recipe.name is None:
            if unnamed is not None:
                message = (
                    f"Only the final document may go without a 'name'; the one on line {unnamed.where.line} has none."
                )
                page.faults.append(Fault(message, recipe.where, "Name all others."))
            unnamed = unnamed or recipe
        elif recipe.name in names:
            first = recipes[names[recipe.name]].where.line
            message = f"A document named '{recipe.name}' already begins on line {first}."
            page.faults.append(Fault(message, recipe.where, "Give each its own name."))
        else:
            names[recipe.name] = i
        if len(recipes) > 1 and any(mark in (recipe.name or "") for mark in "@+"):
            message = f"The name '{recipe.name}' cannot be used as a model: '@' and '+' have a meaning there."
            page.faults.append(Fault(message, recipe.where, "Leave them out."))
    return names


def _used_by(recipe: Recipe, names: dict[str, int]) -> list[int]:
    return sorted({names[model.path] for model in model_mentions(recipe) if model.path in names})


def _check_references(page: Page, recipes: Sequence[Recipe], names: dict[str, int]) -> None:
    if len(recipes) < 2:
        return
    for recipe in recipes:
        for model in model_mentions(recipe):
            if model.path in names and model.revision is not None:
                message = f"'{model.path}' is a stage of this file and has no revision '{model.revision}'."
                page.faults.append(Fault(message, model.where, "Leave the revision out."))
            elif model.path not in names:
                _check_misspelt(page, model, names)


def _check_misspelt(page: Page, model: ModelRef, names: dict[str, int]) -> None:
    """A path without a slash that is near a stage's name and not on disk is that name misspelt."""
    near = did_you_mean(model.path, list(names))
    if near and not any(mark in model.path for mark in "/\\") and not Path(model.path).exists():
        message = f"There is no stage and no folder '{model.path}'."
        page.faults.append(Fault(message, model.where, f"{near} A model of the hub is written owner/name."))


def _check_cycles(page: Page, recipes: Sequence[Recipe], uses: Uses) -> bool:
    """Put every cycle that is apart from the others on the page; return whether there was one."""
    graph = dict(uses)
    found = False
    while True:
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            cycle: list[int] = error.args[1][::-1]
        else:
            return found
        found = True
        names = " uses ".join(f"'{recipes[i].name}'" for i in cycle)
        page.faults.append(Fault(f"A stage cannot need itself: {names}.", recipes[cycle[0]].where))
        graph = {i: [j for j in used if j not in cycle] for i, used in graph.items() if i not in cycle}


def _sorted(uses: Uses) -> list[int]:
    """The first document whose needs are met, again and again: the file's own order wherever it is a valid one."""
    order: list[int] = []
    while len(order) < len(uses):
        order.append(next(i for i, used in uses.items() if i not in order and all(j in order for j in used)))
    return order


def _check_unused(page: Page, recipes: Sequence[Recipe], uses: Uses, order: Sequence[int]) -> None:
    used = {j for parts in uses.values() for j in parts}
    final = recipes[order[-1]]
    called = f"'{final.name}'" if final.name else "without a name"
    for i in order[:-1]:
        if i not in used:
            message = f"Nothing uses stage '{recipes[i].name}', and the final document is the one {called}"
            page.faults.append(
                Fault(f"{message} (line {final.where.line}).", recipes[i].where, "Use it as a model, or remove it.")
            )


def _with_warnings(recipe: Recipe, names: dict[str, int]) -> Recipe:
    shadowed = [
        Fault(f"'{model.path}' is a folder here, but means the stage of that name.", model.where, "Rename one.")
        for model in model_mentions(recipe)
        if model.path in names and Path(model.path).exists()
    ]
    return replace(recipe, warnings=tuple(dict.fromkeys((*recipe.warnings, *shadowed)))) if shadowed else recipe
