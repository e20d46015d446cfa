"""Recipe and headers in, plan out. No weight byte is read and nothing is written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from plait.checkpoint import side_files
from plait.errors import Fault, RecipeError
from plait.planning.document import Planned, plan_document
from plait.planning.layout import DEFAULT_SHARD_SIZE, index_json, lay_out
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
]


def make_plan(
    recipe: str | os.PathLike[str] | Sequence[Recipe],
    *,
    root: Path | None = None,
    shard_size: int = DEFAULT_SHARD_SIZE,
    seed: int | None = None,
    explain: bool = False,
    expected_hashes: Mapping[str, str] | None = None,
) -> Plan:
    """Plan a merge from its recipe (a path, or documents already read) and its inputs' headers.

    Args:
        recipe: A recipe file, or what `plait.recipe.load_recipe` returned.
        root: Where relative paths of models are looked for after the working directory; default the recipe's folder.
        shard_size: Most bytes of weights in one output file.
        seed: Overrides the recipe's `seed`; 0 where neither says.
        explain: Keep, for every tensor, which rule gave each parameter its value.
        expected_hashes: From a lock: the content hash that each input tensor must have.

    Raises:
        RecipeError: with everything that is wrong, over all documents.
    """
    stages = tuple(load_recipe(recipe) if isinstance(recipe, (str, os.PathLike)) else recipe)
    if isinstance(recipe, (str, os.PathLike)):
        root = Path(recipe).resolve().parent
    faults: list[Fault] = []
    library = Library(root, faults)
    planned: list[Planned] = []
    for document in stages:
        found = plan_document(document, library, explain=explain)
        if found is None:
            break
        planned.append(found)
        if document is not stages[-1]:
            library.enter_stage(document, found.steps, found.config, found.donor)
    if faults or len(planned) < len(stages):
        raise RecipeError(faults)
    return _assemble(stages, planned, library, shard_size, seed, expected_hashes or {})


def _assemble(
    stages: tuple[Recipe, ...],
    planned: Sequence[Planned],
    library: Library,
    shard_size: int,
    seed: int | None,
    expected: Mapping[str, str],
) -> Plan:
    last = planned[-1]
    if not last.steps:
        raise RecipeError([Fault("No tensor is left to write.", last.recipe.where)])
    files, placed = lay_out(last.steps, shard_size)
    chosen = seed if seed is not None else next((r.seed for r in reversed(stages) if r.seed is not None), 0)
    return Plan(
        recipe=stages[-1],
        stages=stages,
        models=tuple(library.models),
        placed=placed,
        files=files,
        donor=last.donor.index,
        config=last.config,
        side_files=side_files(last.donor.checkpoint) if last.donor.checkpoint else {},
        seed=chosen,
        tied=last.tied,
        dropped=tuple(drop for part in planned for drop in part.dropped),
        warnings=tuple(dict.fromkeys(w for part in planned for w in part.warnings)),
        notes=tuple(dict.fromkeys(n for part in planned for n in part.notes)),
        stage_steps=tuple(step for part in planned[:-1] for step in part.steps),
        expected_hashes=expected,
    )
