"""Whether the inputs mean the same tokens by the same rows, and whose tokenizer the output has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plait.checkpoint.vocabulary import VOCABULARY_FILES, Vocabulary, read_vocabulary
from plait.errors import Fault
from plait.planning.views import Library, View
from plait.recipe.types import ModelRef, Recipe

__all__ = ["tokenizer_donor", "vocabulary_warnings"]


def vocabulary_warnings(recipe: Recipe, views: Sequence[View], donor: View) -> list[Fault]:
    """Compare every input's vocabulary with the donor's; a `tokenizer` section has made them one.

    A difference is a warning, for rows may still agree where it matters.
    """
    found: list[Fault] = []
    own: Vocabulary | None = None
    for view in views:
        if recipe.tokenizer is not None or view is donor or _same_files(view, donor):
            continue
        own = own or read_vocabulary(donor.files, donor.texts)
        other = read_vocabulary(view.files, view.texts)
        if own is None or other is None or other.ids == own.ids:
            continue
        found.append(_difference(recipe, (view.reference, other.ids), (donor.reference, own.ids)))
    return found


def _same_files(view: View, donor: View) -> bool:
    """Whether the files that hold the vocabulary are the same bytes, so that nothing need be parsed."""
    if view.texts or donor.texts:
        return False
    names = [name for name in VOCABULARY_FILES if name in view.files or name in donor.files]
    if not all(name in view.files and name in donor.files for name in names):
        return False
    pairs = [(view.files[name], donor.files[name]) for name in names]
    return all(a == b or (a.stat().st_size == b.stat().st_size and a.read_bytes() == b.read_bytes()) for a, b in pairs)


def _difference(recipe: Recipe, one: tuple[str, Mapping[str, int]], two: tuple[str, Mapping[str, int]]) -> Fault:
    (name, other), (donor, own) = one, two
    changed = [token for token, i in own.items() if other.get(token, i) != i]
    added, gone = other.keys() - own.keys(), own.keys() - other.keys()
    text = (
        f"{name} and {donor} have different vocabularies: {len(other)} and {len(own)} tokens; "
        f"{len(added)} only in the first, {len(gone)} only in the second, {len(changed)} with another id"
    )
    example = next(iter(sorted(changed) or sorted(added) or sorted(gone)), "")
    hint = "`tokenizer_source: union` or `base` aligns them by token."
    return Fault(f"{text} (such as {example!r}). Rows are merged by number.", recipe.where, hint)


def tokenizer_donor(recipe: Recipe, views: Mapping[str, View], donor: View, library: Library) -> View | None:
    """The model that the output's tokenizer is, or is made from: the one that `tokenizer` names, else the donor.

    None, with a fault, when it cannot be opened.
    """
    source = recipe.tokenizer.source if recipe.tokenizer else "base"
    if not isinstance(source, ModelRef):
        return donor
    return views.get(str(source)) or library.view(source)
