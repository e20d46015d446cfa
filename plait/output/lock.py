"""The lock: the recipe, the content hash of every input tensor, versions and seed; a merge of it gives the same bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plait
from plait.engine.hashes import Registry
from plait.errors import CheckpointError
from plait.output.names import by_neutral_name, is_absolute, neutral_text, piece_names
from plait.planning.matching import expert_orders
from plait.planning.types import Plan, Step

__all__ = ["LOCK_NAME", "Lock", "input_hashes", "lock_json", "read_lock"]

LOCK_NAME = "plait.lock"
_FORMAT = 1
_HERE = "./"
"""What neutral names begin with, so that they are read as paths and never as a stage or an adapter."""


@dataclass(frozen=True, slots=True)
class Lock:
    """What a lock file says. `hashes` is by "model reference: tensor name"."""

    recipe: str
    recipe_file: str
    models: Mapping[str, Path]
    """Where the local models lay, by their reference in `recipe`."""
    seed: int
    shard_size: int
    hashes: Mapping[str, str]
    commits: Mapping[str, str] = field(default_factory=dict)
    """Which commit each hub name in `recipe` stood for."""


def input_hashes(plan: Plan, registry: Registry) -> dict[str, str]:
    """Return the hash of every stored tensor that the plan reads, by "model: tensor", in a fixed order."""
    hashes: dict[str, str] = {}
    pending: list[Step] = list(plan.steps)
    seen: set[int] = set()
    while pending:
        step = pending.pop()
        if id(step) in seen:
            continue
        seen.add(id(step))
        for source in step.inputs:
            if source.step is not None:
                pending.append(source.step)
            elif source.tensor is not None:
                digest = registry.tensor(source.tensor)
                if digest is not None:
                    hashes[f"{plan.models[source.model].reference}: {source.tensor.name}"] = digest
    return dict(sorted(hashes.items()))


def lock_json(plan: Plan, hashes: Mapping[str, str], out: Path, shard_size: int) -> str:
    """Write the lock's text. It holds no time and no absolute path, so the same merge writes the same lock.

    Local models are found again relative to the lock's folder, `out`; those that the recipe names by an absolute path
    go by a neutral name.
    """
    names = piece_names(plan.models)
    places = {
        (_HERE + names[text] if is_absolute(text) else text): path
        for model in plan.models
        for text, path in model.pieces
        if path is not None
    }
    entry: dict[str, Any] = {
        "plait_lock": _FORMAT,
        "versions": {"plait": plait.__version__},
        "recipe": neutral_text(plan.recipe.text, plan.models, _HERE),
        "recipe_file": Path(plan.recipe.file).name,
        "models": {name: Path(os.path.relpath(path, out.resolve())).as_posix() for name, path in places.items()},
        **({"commits": dict(plan.commits)} if plan.commits else {}),
        "seed": plan.seed,
        "shard_size": shard_size,
        **({"experts": by_neutral_name(orders, plan.models, _HERE)} if (orders := expert_orders(plan)) else {}),
        "inputs": by_neutral_name(hashes, plan.models, _HERE),
    }
    return json.dumps(entry, indent=1, ensure_ascii=False) + "\n"


def read_lock(path: Path) -> Lock | None:
    """Read a lock, or return None when the file is something else (a recipe).

    Raises:
        CheckpointError: a lock of a later format, or one that is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if not text.lstrip().startswith("{") or '"plait_lock"' not in text[:200]:
        return None
    try:
        entry = json.loads(text)
        if entry["plait_lock"] != _FORMAT:
            raise CheckpointError(f"{path}: a lock of format {entry['plait_lock']}; this plait reads format {_FORMAT}.")
        folder = path.resolve().parent
        models = {str(name): (folder / place).resolve() for name, place in dict(entry["models"]).items()}
        seed, shard_size = int(entry["seed"]), int(entry["shard_size"])
        hashes, commits = dict(entry["inputs"]), dict(entry.get("commits", {}))
        return Lock(entry["recipe"], entry["recipe_file"], models, seed, shard_size, hashes, commits)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: a damaged lock ({error!r}).") from None
