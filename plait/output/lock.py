"""The lock: the recipe, the content hash of every input tensor, versions and seed; a merge of it gives the same bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plait
from plait.engine.hashes import Registry
from plait.errors import CheckpointError
from plait.planning.types import Plan, Step

__all__ = ["LOCK_NAME", "Lock", "lock_json", "read_lock"]

LOCK_NAME = "plait.lock"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Lock:
    """What a lock file says. `hashes` is by "model reference: tensor name"."""

    recipe: str
    recipe_file: str
    root: Path
    seed: int
    shard_size: int
    hashes: Mapping[str, str]


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
    """Write the lock's text. It holds no time and no absolute path, so the same merge writes the same lock."""
    file = Path(plan.recipe.file)
    root = file.resolve().parent if file.exists() else Path.cwd()
    entry: dict[str, Any] = {
        "plait_lock": _FORMAT,
        "versions": {"plait": plait.__version__},
        "recipe": plan.recipe.text,
        "recipe_file": file.name,
        "root": os.path.relpath(root, out.resolve()),
        "seed": plan.seed,
        "shard_size": shard_size,
        "inputs": dict(hashes),
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
        root = (path.resolve().parent / entry["root"]).resolve()
        return Lock(
            entry["recipe"], entry["recipe_file"], root, int(entry["seed"]), int(entry["shard_size"]), dict(entry["inputs"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: a damaged lock ({error!r}).") from None
