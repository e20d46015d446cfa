"""Every file of the output besides the weights: config, tokenizer, template, card, recipe, lock, index."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from plait.output.card import card
from plait.output.lock import LOCK_NAME, lock_json
from plait.output.names import neutral_text
from plait.planning import index_json
from plait.planning.layout import INDEX_NAME
from plait.planning.types import Plan

__all__ = ["RECIPE_NAME", "write_side_files"]

RECIPE_NAME = "plait_recipe.yml"


def write_side_files(plan: Plan, folder: Path, out: Path, hashes: Mapping[str, str], shard_size: int) -> None:
    """Write them all into `folder`, which will be renamed to `out`. What is written does not depend on time."""
    for name, path in plan.side_files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    if plan.config is not None:
        _write(folder / "config.json", json.dumps(dict(plan.config), indent=2, ensure_ascii=False) + "\n")
    for name, text in plan.texts.items():
        _write(folder / name, text)
    index = index_json(plan.files, plan.placed)
    if index is not None:
        _write(folder / INDEX_NAME, index)
    _write(folder / "README.md", card(plan, out.name))
    _write(folder / RECIPE_NAME, neutral_text(plan.recipe.text, plan.models))
    _write(folder / LOCK_NAME, lock_json(plan, hashes, out, shard_size))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
