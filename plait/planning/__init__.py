"""Recipe and headers in, plan out. No weight byte is read and nothing is written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from plait.errors import Fault, RecipeError
from plait.planning.document import Planned, plan_document
from plait.planning.layout import DEFAULT_SHARD_SIZE, index_json, lay_out
from plait.planning.parameters import check_document
from plait.planning.types import Dropped, Explained, File, Model, Placed, Plan, Source, Step
from plait.planning.views import Library
from plait.recipe import load_recipe
from plait.recipe.types import Recipe

__all__ = [
    "DEFAULT_SHARD_SIZE",
    "Dropped",
    "Explained",
    "File",
    "Model",
    "Placed",
    "Plan",
    "Source",
    "Step",
    "index_json",
    "make_plan",
    "read_documents",
]


def read_documents(path: Path) -> tuple[Recipe, ...]:
    """Read a recipe file. Where it is at fault, methods and parameters are judged as well, so that all is told at once.

    Raises:
        RecipeError: as `plait.recipe.load_recipe`.
    """
    try:
        return load_recipe(path)
    except RecipeError as error:
        more = [fault for document in error.readable if document.merge_method for fault in check_document(document)]
        raise RecipeError([*error.faults, *more]) from None


def make_plan(
    recipe: str | os.PathLike[str] | Sequence[Recipe],
    *,
    root: Path | None = None,
    shard_size: int = DEFAULT_SHARD_SIZE,
    seed: int | None = None,
    explain: bool = False,
    expected_hashes: Mapping[str, str] | None = None,
    places: Mapping[str, Path] | None = None,
    commits: Mapping[str, str] | None = None,
) -> Plan:
    """Plan a merge from its recipe (a path, or documents already read) and its inputs' headers.

    Args:
        recipe: A recipe file, or what `plait.recipe.load_recipe` returned.
        root: Where relative paths of models are looked for after the working directory; default the recipe's folder.
        shard_size: Most bytes of weights in one output file.
        seed: Overrides the recipe's `seed`; 0 where neither says.
        explain: Keep, for every tensor, which rule gave each parameter its value.
        expected_hashes: From a lock: the content hash that each input tensor must have.
        places: From a lock: where the models lie that it calls by a neutral name.
        commits: From a lock: which commit each hub name stands for.

    Raises:
        RecipeError: with everything that is wrong, over all documents.
    """
    if isinstance(recipe, (str, os.PathLike)):
        stages = read_documents(Path(recipe))
        root = Path(recipe).resolve().parent
    else:
        stages = tuple(recipe)
    faults = [fault for document in stages for fault in check_document(document)]
    chosen, clash = _seed(stages, seed)
    faults += clash
    library = Library(root, faults, places or {}, dict(commits or {}))
    planned: list[Planned] = []
    for document in stages:
        found = plan_document(document, library, explain=explain)
        if found is None:
            library.failed.add(document.name or "")
            continue
        planned.append(found)
        if document is not stages[-1]:
            library.enter_stage(document.name or "", found.as_view(len(library.models)))
    if faults or len(planned) < len(stages):
        raise RecipeError(faults)
    return _assemble(stages, planned, library, shard_size, chosen, expected_hashes or {})


def _seed(stages: Sequence[Recipe], given: int | None) -> tuple[int, list[Fault]]:
    """Return the seed, and a fault when documents disagree on it."""
    stated = [document for document in stages if document.seed is not None]
    if given is not None:
        return given, []
    odd = [document for document in stated if document.seed != stated[0].seed]
    message = "The documents state different seeds; a file has one."
    faults = [Fault(f"{message} ({document.seed}, {stated[0].seed})", document.where) for document in odd]
    return (stated[0].seed or 0) if stated else 0, faults


def _assemble(
    stages: tuple[Recipe, ...],
    planned: Sequence[Planned],
    library: Library,
    shard_size: int,
    seed: int,
    expected: Mapping[str, str],
) -> Plan:
    last = planned[-1]
    if not last.steps:
        raise RecipeError([Fault("No tensor is left to write.", last.recipe.where)])
    files, placed = lay_out(last.steps, shard_size)
    return Plan(
        recipe=stages[-1],
        stages=stages,
        models=tuple(library.models),
        placed=placed,
        files=files,
        donor=last.donor.index,
        config=last.config,
        side_files=last.side.files,
        seed=seed,
        tied=last.tied,
        twins=tuple(dict.fromkeys(pair for part in planned for pair in part.twins)),
        dropped=(*library.dropped, *(drop for part in planned for drop in part.dropped)),
        warnings=tuple(dict.fromkeys(w for part in planned for w in part.warnings)),
        notes=tuple(dict.fromkeys(n for part in planned for n in part.notes)),
        stage_steps=_needed(last.steps),
        expected_hashes=expected,
        texts=last.side.texts,
        commits=dict(sorted(library.commits.items())),
    )


def _needed(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps of earlier stages that these read, each after those that it reads itself."""
    found: dict[Step, None] = {}

    def visit(step: Step) -> None:
        for source in step.inputs:
            if source.step is not None and source.step not in found:
                visit(source.step)
                found[source.step] = None

    for step in steps:
        visit(step)
    return tuple(found)
