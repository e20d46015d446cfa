"""Whether shapes fit: the inputs of one tensor each other, and an output tensor the model that gives the config."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from plait.errors import Fault, Where
from plait.planning.types import Source, Step
from plait.planning.views import View
from plait.structure import embedding_and_heads, locate, vocab_biases

__all__ = ["Shapes"]

_SHOWN = 3


@dataclass
class Shapes:
    """Gathers shapes that differ, by the two models concerned, so that a report has one fault a pair."""

    where: Where
    donor: View
    _differ: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    _rows: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    """By pair, for every such tensor: the one whose rows alone differ, or "" when more does."""

    def agree(self, name: str, first: tuple[Source, View], others: Iterable[tuple[Source, View]]) -> bool:
        """Whether all inputs of one tensor have the first's shape; notes those that have not."""
        agree = True
        for source, view in others:
            if source.shape != first[0].shape:
                self._note(name, (first[0].shape, first[1].reference), (source.shape, view.reference))
                agree = False
        return agree

    def _note(self, name: str, one: tuple[tuple[int, ...], str], two: tuple[tuple[int, ...], str]) -> None:
        key = (one[1], two[1])
        self._differ[key].append(f"{name} is {list(one[0])} in {one[1]}, {list(two[0])} in {two[1]}")
        outside = locate(name) is None
        rows = outside and len(one[0]) == len(two[0]) and one[0][1:] == two[0][1:]
        self._rows[key].append(name if rows else "")

    def fit_donor(self, steps: Iterable[Step], references: Sequence[str]) -> None:
        """Note output tensors whose shape the donor's config cannot speak of: another than all of its own layers'.

        `references` are the models' names, by index.
        """
        layers: dict[tuple[str, str], set[tuple[int, ...]]] = defaultdict(set)
        for name, shape in self.donor.shapes.items():
            layers[_form(name)].add(shape)
        for step in steps:
            known = layers.get(_form(step.name), {step.shape})
            if step.shape not in known:
                owner = references[step.inputs[0].model]
                self._note(step.name, (min(known), self.donor.reference), (step.shape, owner))

    def faults(self) -> list[Fault]:
        """One fault for each pair of models whose shapes differ, with the way out."""
        faults = []
        for pair, texts in self._differ.items():
            more = f" (and {len(texts) - _SHOWN} more tensors)" if len(texts) > _SHOWN else ""
            hint = self._way_out(self._rows[pair])
            faults.append(Fault(f"shapes differ: {'; '.join(texts[:_SHOWN])}{more}.", self.where, hint))
        return faults

    def _way_out(self, rows: Sequence[str]) -> str:
        if not all(rows):
            return "Models of different width cannot be merged."
        copy = "copy these tensors from one model with a `tensors:` rule (match, copy_from)."
        embeddings, heads = embedding_and_heads(self.donor.shapes, self.donor.config)
        if {*embeddings, *heads, *vocab_biases(self.donor.shapes, self.donor.config)} & set(rows):
            return f"Only numbers of rows differ: add `tokenizer_source: union` or `base` to align rows by token, or {copy}"
        return f"Heads for different classes cannot be merged: {copy}"


def _form(name: str) -> tuple[str, str]:
    """A name without its layer's number."""
    at = locate(name)
    return (name, "") if at is None else (f"{at.prefix}.#", at.suffix)
