"""Whether the inputs mean the same tokens by the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from plait.checkpoint import side_files
from plait.errors import Fault
from plait.planning.views import View
from plait.recipe.types import Recipe

__all__ = ["tokenizer_donor", "vocabulary", "vocabulary_faults"]


def vocabulary(files: Mapping[str, Path]) -> dict[str, int] | None:
    """Read token -> id from a model's tokenizer files, or None where there are none that plait reads."""
    if "tokenizer.json" in files:
        data = json.loads(files["tokenizer.json"].read_text(encoding="utf-8"))
        vocab = data.get("model", {}).get("vocab", {})
        tokens = {token: i for i, (token, _) in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
        return tokens | {entry["content"]: entry["id"] for entry in data.get("added_tokens", [])}
    if "vocab.json" in files:
        return dict(json.loads(files["vocab.json"].read_text(encoding="utf-8")))
    if "vocab.txt" in files:
        lines = files["vocab.txt"].read_text(encoding="utf-8").split("\n")
        return {token: i for i, token in enumerate(lines) if token or i < len(lines) - 1}
    return None


def vocabulary_faults(recipe: Recipe, views: Sequence[View], donor: View, warnings: list[Fault]) -> list[Fault]:
    """Compare every input's vocabulary with the donor's.

    A difference is a warning, for rows may still agree where it matters; with a `tokenizer` section, which asks for rows
    to be aligned, it is a fault, since plait merges row by row.
    """
    own = _vocabulary_of(donor)
    if own is None:
        return []
    for view in views:
        other = _vocabulary_of(view)
        if other is None or other == own:
            continue
        changed = [token for token, i in own.items() if other.get(token, i) != i]
        added, gone = other.keys() - own.keys(), own.keys() - other.keys()
        text = (
            f"{view.reference} and {donor.reference} have different vocabularies: {len(other)} and {len(own)} tokens; "
            f"{len(added)} only in the first, {len(gone)} only in the second, {len(changed)} with another id"
        )
        example = next(iter(sorted(changed) or sorted(added) or sorted(gone)), "")
        fault = Fault(f"{text} (such as {example!r}).", recipe.tokenizer.where if recipe.tokenizer else recipe.where)
        if recipe.tokenizer is not None:
            hint = "Rows cannot be aligned by token here: give all inputs one tokenizer first."
            return [Fault(fault.message, fault.where, hint)]
        warnings.append(fault)
    return []


def _vocabulary_of(view: View) -> dict[str, int] | None:
    return vocabulary(side_files(view.checkpoint)) if view.checkpoint else None


def tokenizer_donor(recipe: Recipe, views: Mapping[str, View], donor: View) -> View:
    """The model that tokenizer files are copied from: the one that `tokenizer` names, else the donor."""
    source = recipe.tokenizer.source if recipe.tokenizer else "base"
    return views.get(str(source), donor)
