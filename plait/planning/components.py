"""What each tensor is for, in the words of recipes."""

from __future__ import annotations

from plait.planning.views import View
from plait.recipe import filters_in
from plait.recipe.types import Recipe
from plait.structure import component, embedding_and_heads

__all__ = ["Components"]

_WORDS = {"norm": "norms"}


class Components:
    """Reads off a model what its tensors are for; "" for all of them where the recipe does not ask."""

    def __init__(self, recipe: Recipe, view: View) -> None:
        rules = any(rule.component for rule in recipe.tensors)
        self._asked = rules or any(entry.component for entry in filters_in(recipe))
        self._known: dict[str, str] = {}
        if self._asked:
            embeddings, heads = embedding_and_heads(view.shapes, view.config)
            self._known = {**dict.fromkeys(embeddings, "embeddings"), **dict.fromkeys(heads, "head")}

    def of(self, name: str, shape: tuple[int, ...]) -> str:
        """Return the word for what a tensor is for, one of `plait.recipe.types.COMPONENTS`."""
        if not self._asked:
            return ""
        if name not in self._known:
            found = component(name, shape, None)
            self._known[name] = _WORDS.get(found, found)
        return self._known[name]
