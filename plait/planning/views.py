"""The models of one recipe document, each seen under the donor's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from plait.checkpoint import open_checkpoint, quantisation
from plait.checkpoint.types import Checkpoint
from plait.errors import CheckpointError, Fault
from plait.planning.types import Model, Source, Step
from plait.recipe.types import ModelRef, Recipe
from plait.structure import Stack, align, declared_tie, embedding_and_heads, find_stacks

__all__ = ["Library", "View", "align_to", "settle_ties"]


@dataclass
class View:
    """One model under the names of the output's layout."""

    index: int
    reference: str
    config: Mapping[str, Any] | None
    entries: dict[str, Source]
    checkpoint: Checkpoint | None
    """Where side files come from; a stage has its donor's."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    tied: set[str] = field(default_factory=set)
    """Names here that are another tensor of this model: read, but not the model's own."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        return {name: source.shape for name, source in self.entries.items()}

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """The layer stacks of the names."""
        return find_stacks(tuple(self.entries))


@dataclass
class Library:
    """Every model that a recipe file names, opened once; stages enter here when they are planned."""

    root: Path | None
    faults: list[Fault]
    models: list[Model] = field(default_factory=list)
    views: dict[str, View] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set)

    def view(self, reference: ModelRef) -> View | None:
        """Return the model's view, opening it the first time; a fault and None when that cannot be."""
        key = str(reference)
        if key in self._failed:
            return None
        if key not in self.views and not self._open(reference, key):
            self._failed.add(key)
            return None
        return self.views[key]

    def _open(self, reference: ModelRef, key: str) -> bool:
        if reference.adapter:
            message = f"{key}: adapters cannot be merged here yet."
            hint = "Merge the adapter into its base first (peft: merge_and_unload) and name that folder."
            self.faults.append(Fault(message, reference.where, hint))
            return False
        try:
            opened = open_checkpoint(reference.path, revision=reference.revision, root=self.root)
        except CheckpointError as error:
            self.faults.append(Fault(str(error), reference.where))
            return False
        scheme = quantisation(opened)
        if scheme:
            message = f"{key} is quantised ({scheme}); its stored numbers are not weights."
            hint = "Dequantise it first, or name the checkpoint that it was made from."
            self.faults.append(Fault(message, reference.where, hint))
            return False
        index = len(self.models)
        self.models.append(Model(key, opened.path, opened.config, opened.notes))
        entries = {name: Source(index, tensor) for name, tensor in opened.tensors.items()}
        self.views[key] = View(index, key, opened.config, entries, opened, opened.aliases)
        return True

    def enter_stage(self, recipe: Recipe, steps: tuple[Step, ...], config: Mapping[str, Any] | None, donor: View) -> None:
        """Make a planned stage usable under its name."""
        name = recipe.name or ""
        index = len(self.models)
        self.models.append(Model(name, Path(), config, stage=name))
        entries = {step.name: Source(index, step=step) for step in steps}
        self.views[name] = View(index, name, config, entries, donor.checkpoint)


def align_to(donor: View, view: View) -> tuple[View, str]:
    """Return the view under the donor's names, and a note on what was renamed ("" for nothing)."""
    found = align(donor.shapes, view.shapes)
    if not found.renames:
        return view, ""
    names = {name: found.renames.get(name, name) for name in view.entries}
    entries = {names[name]: source for name, source in view.entries.items()}
    aliases = {names.get(a, a): names.get(b, b) for a, b in view.aliases.items()}
    changes = [f"{verb} {part!r}" for verb, part in (("without", found.strip), ("with", found.add)) if part]
    note = f"{view.reference}: {len(found.renames)} names read {' and '.join(changes)} to match {donor.reference}."
    return replace(view, entries=entries, aliases=aliases), note


def settle_ties(views: list[View], donor: View) -> tuple[dict[str, str], list[View], bool | None]:
    """Decide which heads are the embedding itself.

    Returns the names that the output leaves out (name -> the tensor it is tied to); the views, with the head of every
    tied model readable under its own name wherever some other model has a head of its own; and what the output's
    config must say about tying (None: leave it).
    """
    embedding, heads = _embedding_and_heads(views, donor)
    aliases = {name: kept for view in views for name, kept in view.aliases.items()}
    aliases |= {head: embedding for head in heads if embedding and head not in aliases}
    tied: dict[str, str] = {}
    completed = [replace(view, entries=dict(view.entries), tied=set(view.tied)) for view in views]
    says: bool | None = None
    for name, kept in aliases.items():
        if not any(_owns(view, name, head=name in heads) for view in completed):
            if any(name in view.entries for view in completed):
                tied[name] = kept
            continue
        for view in completed:
            follows = name in view.aliases or declared_tie(view.config) is not False
            if not _owns(view, name, head=name in heads) and kept in view.entries and follows:
                view.entries[name] = view.entries[kept]
                view.tied.add(name)
        if name in heads and declared_tie(donor.config) is not False:
            says = False
    return tied, completed, says


def _embedding_and_heads(views: list[View], donor: View) -> tuple[str | None, tuple[str, ...]]:
    embeddings, heads = embedding_and_heads(donor.shapes, donor.config)
    for view in views:
        if not heads and view is not donor:
            heads = tuple(h for h in embedding_and_heads(view.shapes, view.config)[1] if h not in donor.entries)
    return (embeddings[0] if embeddings else None), tuple(heads)


def _owns(view: View, name: str, *, head: bool) -> bool:
    """Whether the model has this tensor as one of its own, not as another name of the embedding."""
    if name not in view.entries or name in view.aliases or name in view.tied:
        return False
    return not (head and declared_tie(view.config) is True)
