"""Whether the inputs mean the same tokens by the same rows, and whose tokenizer the output has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plait.errors import Fault
from plait.planning.views import Library, View
from plait.recipe.types import ModelRef, Recipe

__all__ = ["tokenizer_donor", "tokenizer_faults", "vocabulary", "vocabulary_faults"]

_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt")


def vocabulary(files: Mapping[str, Path]) -> dict[str, int] | None:
    """Read token -> id from a model's tokenizer files, or None where there are none that plait can read."""
    try:
        if "tokenizer.json" in files:
            return _of_tokenizer_json(json.loads(files["tokenizer.json"].read_text(encoding="utf-8")))
        if "vocab.json" in files:
            return {str(token): int(i) for token, i in _read(files["vocab.json"]).items()}
        if "vocab.txt" in files:
            lines = files["vocab.txt"].read_text(encoding="utf-8").split("\n")
            return {token: i for i, token in enumerate(lines) if token or i < len(lines) - 1}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return None


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _of_tokenizer_json(data: dict[str, Any]) -> dict[str, int] | None:
    vocab = data["model"].get("vocab")
    if vocab is None:
        return None
    tokens = {str(token): i for i, (token, _) in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
    return tokens | {str(entry["content"]): int(entry["id"]) for entry in data.get("added_tokens") or []}


def vocabulary_faults(recipe: Recipe, views: Sequence[View], donor: View) -> tuple[list[Fault], list[Fault]]:
    """Compare every input's vocabulary with the donor's; returns faults and warnings.

    A difference is a warning, for rows may still agree where it matters; with a `tokenizer` section, which asks for
    rows to be aligned, it is a fault, since plait merges row by row.
    """
    found = []
    own: dict[str, int] | None = None
    for view in views:
        if view is donor or _same_files(view, donor):
            continue
        own = vocabulary(donor.files) if own is None else own
        other = vocabulary(view.files)
        if own is None or other is None or other == own:
            continue
        found.append(_difference(recipe, (view.reference, other), (donor.reference, own)))
    return (found, []) if recipe.tokenizer is not None else ([], found)


def _same_files(view: View, donor: View) -> bool:
    """Whether the files that hold the vocabulary are the same bytes, so that nothing need be parsed."""
    names = [name for name in _VOCABULARIES if name in view.files or name in donor.files]
    if not all(name in view.files and name in donor.files for name in names):
        return False
    pairs = [(view.files[name], donor.files[name]) for name in names]
    return all(a == b or (a.stat().st_size == b.stat().st_size and a.read_bytes() == b.read_bytes()) for a, b in pairs)


def _difference(recipe: Recipe, one: tuple[str, dict[str, int]], two: tuple[str, dict[str, int]]) -> Fault:
    (name, other), (donor, own) = one, two
    changed = [token for token, i in own.items() if other.get(token, i) != i]
    added, gone = other.keys() - own.keys(), own.keys() - other.keys()
    text = (
        f"{name} and {donor} have different vocabularies: {len(other)} and {len(own)} tokens; "
        f"{len(added)} only in the first, {len(gone)} only in the second, {len(changed)} with another id"
    )
    example = next(iter(sorted(changed) or sorted(added) or sorted(gone)), "")
    if recipe.tokenizer is None:
        return Fault(f"{text} (such as {example!r}). Rows are merged by number.", recipe.where)
    hint = "Rows cannot be aligned by token here yet: give all inputs one tokenizer first."
    return Fault(f"{text} (such as {example!r}).", recipe.tokenizer.where, hint)


def tokenizer_faults(recipe: Recipe, rows: int | None) -> list[Fault]:
    """Refuse what a `tokenizer` section asks for beyond one shared vocabulary. `rows` are the embedding's."""
    asked = recipe.tokenizer
    if asked is None:
        return []
    faults = [
        Fault(f"tokenizer: a rule for token {token!r} is not implemented yet.", rule.where, "Leave `tokens` out.")
        for token, rule in asked.tokens.items()
    ]
    multiple = asked.pad_to_multiple_of
    if multiple and rows and rows % multiple:
        message = f"tokenizer: padding {rows} rows to a multiple of {multiple} is not implemented yet."
        faults.append(Fault(message, asked.where, "Leave `pad_to_multiple_of` out."))
    return faults


def tokenizer_donor(recipe: Recipe, views: Mapping[str, View], donor: View, library: Library) -> View | None:
    """The model that tokenizer files are copied from: the one that `tokenizer` names, else the donor.

    None, with a fault, when it cannot be opened.
    """
    source = recipe.tokenizer.source if recipe.tokenizer else "base"
    if not isinstance(source, ModelRef):
        return donor
    return views.get(str(source)) or library.view(source)
