"""What models are called in files that leave this machine: paths mean nothing elsewhere, and tell of their owner."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from plait.planning.types import Model

__all__ = ["by_neutral_name", "is_absolute", "neutral_names", "neutral_text"]


def neutral_names(models: Sequence[Model]) -> dict[str, str]:
    """Return reference -> name: of a local path the last part, made unique; everything else as it is.

    >>> from pathlib import Path
    >>> a, b = Model("/data/a/base", Path(), None, local=True), Model("org/base", Path(), None)
    >>> neutral_names([a, b])
    {'/data/a/base': 'base', 'org/base': 'org/base'}
    """
    names: dict[str, str] = {}
    for model in models:
        name = re.sub(r"[^\w.-]+", "-", Path(model.reference).resolve().name) if model.local else model.reference
        taken, number = set(names.values()), 2
        unique = name or "model"
        while unique in taken:
            unique, number = f"{name}-{number}", number + 1
        names[model.reference] = unique
    return names


def neutral_text(text: str, models: Sequence[Model], prefix: str = "") -> str:
    """Put neutral names, after `prefix`, in the place of every absolute path of a model."""
    names = neutral_names(models)
    for reference in sorted(names, key=len, reverse=True):
        if is_absolute(reference) and names[reference] != reference:
            text = text.replace(reference, prefix + names[reference])
    return text


def is_absolute(reference: str) -> bool:
    """Whether a reference is a path from the root, or from somebody's home."""
    return reference.startswith("~") or Path(reference).is_absolute()


def by_neutral_name(hashes: Mapping[str, str], models: Sequence[Model], prefix: str) -> dict[str, str]:
    """Rename the models in "model: tensor" keys as `neutral_text` does in the recipe."""
    names = neutral_names(models)
    changed = {f"{old}: ": f"{prefix}{new}: " for old, new in names.items() if is_absolute(old)}
    renamed = {}
    for key, digest in hashes.items():
        model, mark, tensor = key.rpartition(": ")
        renamed[changed.get(model + mark, model + mark) + tensor] = digest
    return renamed
