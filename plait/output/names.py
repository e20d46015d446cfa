"""What models are called in files that leave this machine: paths mean nothing elsewhere, and tell of their owner."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from plait.planning.types import Model

__all__ = ["by_neutral_name", "is_absolute", "neutral_names", "neutral_text", "piece_names"]


def neutral_names(models: Sequence[Model]) -> dict[str, str]:
    """Return reference -> name: of local paths the last part, made unique; everything else as it is.

    >>> from pathlib import Path
    >>> a, b = Model("/data/a/base", Path(), None, local=True), Model("org/base", Path(), None)
    >>> neutral_names([a, b])
    {'/data/a/base': 'base', 'org/base': 'org/base'}
    """
    names = piece_names(models)
    return {model.reference: "+".join(names[text] for text, _ in model.pieces) for model in models}


def piece_names(models: Sequence[Model]) -> dict[str, str]:
    """Return the same for what references name: a model, or a base and an adapter."""
    names: dict[str, str] = {}
    for text, place in dict.fromkeys(piece for model in models for piece in model.pieces):
        name = text if place is None else re.sub(r"[^\w.-]+", "-", Path(text).resolve().name)
        taken, number = set(names.values()), 2
        unique = name or "model"
        while unique in taken:
            unique, number = f"{name}-{number}", number + 1
        names.setdefault(text, unique)
    return names


def neutral_text(text: str, models: Sequence[Model], prefix: str = "") -> str:
    """Put neutral names, after `prefix`, in the place of every absolute path of a model."""
    names = piece_names(models)
    for written in sorted(names, key=len, reverse=True):
        if is_absolute(written) and names[written] != written:
            text = text.replace(written, prefix + names[written])
    return text


def is_absolute(reference: str) -> bool:
    """Whether a reference is a path from the root, or from somebody's home."""
    return reference.startswith("~") or Path(reference).is_absolute()


def by_neutral_name(hashes: Mapping[str, str], models: Sequence[Model], prefix: str) -> dict[str, str]:
    """Rename the models in "model: tensor" keys as `neutral_text` does in the recipe."""
    changed = {f"{model.reference}: ": f"{neutral_text(model.reference, models, prefix)}: " for model in models}
    renamed = {}
    for key, digest in hashes.items():
        model, mark, tensor = key.rpartition(": ")
        renamed[changed.get(model + mark, model + mark) + tensor] = digest
    return renamed
