"""The models of one recipe document, each seen under the donor's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from plait.checkpoint import Checkpoint, dequantised, open_checkpoint, side_files
from plait.errors import CheckpointError, Fault
from plait.planning.types import Dropped, Model, Source
from plait.recipe.types import ModelRef
from plait.structure import Stack, align, find_stacks, locate

__all__ = ["Library", "View", "align_to"]


@dataclass(eq=False)
class View:
    """One model under the names of the output's layout. Never changed once made: `dataclasses.replace` it."""

    index: int
    reference: str
    config: Mapping[str, Any] | None
    entries: Mapping[str, Source]
    files: Mapping[str, Path] = field(default_factory=dict)
    """Tokenizer, template and like files: path within the folder -> file."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Such files that are written anew, as a stage's chat template."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    tied: frozenset[str] = frozenset()
    """Names here that are another tensor of this model: read, but not the model's own."""

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        return {name: source.shape for name, source in self.entries.items()}

    @cached_property
    def stacks(self) -> tuple[Stack, ...]:
        """The layer stacks of the names."""
        return find_stacks(self.entries)

    @cached_property
    def layers(self) -> dict[tuple[str, int], tuple[str, ...]]:
        """(prefix, index) -> what follows in the names of that layer's tensors."""
        found: dict[tuple[str, int], list[str]] = {}
        for name in self.entries:
            at = locate(name)
            if at is not None:
                found.setdefault((at.prefix, at.index), []).append(at.suffix)
        return {key: tuple(suffixes) for key, suffixes in found.items()}

    def stack(self, prefix: str) -> Stack | None:
        """Return the stack under a prefix."""
        return next((stack for stack in self.stacks if stack.prefix == prefix), None)


@dataclass
class Library:
    """Every model that a recipe file names, opened once; stages enter here when they are planned."""

    root: Path | None
    faults: list[Fault]
    places: Mapping[str, Path] = field(default_factory=dict)
    """From a lock: where the models that it calls by a neutral name lie."""
    commits: dict[str, str] = field(default_factory=dict)
    """Which commit each hub name stands for: a lock's at first, then every one that was looked up."""
    models: list[Model] = field(default_factory=list)
    views: dict[str, View] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    """What the models' files have and their checkpoints leave out."""
    failed: set[str] = field(default_factory=set)
    """References that cannot be had, for which a fault was told already."""

    def view(self, reference: ModelRef) -> View | None:
        """Return the model's view, opening it the first time; a fault and None when that cannot be."""
        key = str(reference)
        if key in self.failed:
            return None
        if key not in self.views and not self._open(reference, key):
            self.failed.add(key)
            return None
        return self.views[key]

    def _open(self, reference: ModelRef, key: str) -> bool:
        if reference.adapter and any(model.stage == reference.path for model in self.models):
            message = f"{key}: an adapter on a stage cannot be merged."
            self.faults.append(Fault(message, reference.where, "Put it on the models that the stage is made from."))
            return False
        try:
            opened = dequantised(self._opened(reference))
        except CheckpointError as error:
            self.faults.append(Fault(str(error), reference.where))
            return False
        index = len(self.models)
        self.models.append(self._model(reference, opened))
        self.dropped += [Dropped(key, name, reason) for name, reason in opened.left_out.items()]
        entries = {name: Source(index, tensor) for name, tensor in opened.tensors.items()}
        files = side_files(opened)
        self.views[key] = View(index, key, opened.config, entries, files, opened.texts, aliases=opened.aliases)
        return True

    def _opened(self, reference: ModelRef) -> Checkpoint:
        adapter = self._place(reference.adapter or "")
        return open_checkpoint(
            self._place(reference.path) or reference.path,
            revision=reference.revision,
            root=self.root,
            adapter=str(adapter) if adapter else reference.adapter,
            adapter_revision=reference.adapter_revision,
            commits=self.commits,
        )

    def _place(self, written: str) -> Path | None:
        """Where a lock says that a model lies; None where nothing is there, for it may lie beside the lock by now."""
        place = self.places.get(written)
        return place if place is not None and place.exists() else None

    def _model(self, reference: ModelRef, opened: Checkpoint) -> Model:
        local = self._is_local(reference.path)
        named: tuple[tuple[str, Path | None], ...] = ()
        if reference.adapter:
            base = reference.path + (f"@{reference.revision}" if reference.revision else "")
            adapter = str(reference).removeprefix(f"{base}+")
            # An adapter that is named as a model has its own base; what the recipe names is the adapter.
            of_base = opened.adapters[-2] if opened.adapters[1:] else opened.path
            lies = opened.adapters[-1] if self._is_local(reference.adapter) else None
            named = (base, of_base if local else None), (adapter, lies)
        return Model(
            str(reference), opened.path, opened.config, opened.notes, local=local, adapters=opened.adapters, named=named
        )

    def _is_local(self, written: str) -> bool:
        return self._place(written) is not None or _is_path(written, self.root)

    def enter_stage(self, name: str, view: View) -> None:
        """Make a planned stage usable under its name."""
        self.models.append(Model(name, Path(), view.config, stage=name))
        self.views[name] = view


def _is_path(path: str, root: Path | None) -> bool:
    written = Path(path).expanduser()
    return written.exists() or (root is not None and (root / written).exists())


def align_to(donor: View, view: View) -> tuple[View, str]:
    """Return the view under the donor's names, and a note on what was renamed ("" for nothing)."""
    if view.entries.keys() <= donor.entries.keys():
        return view, ""
    found = align(donor.shapes, view.shapes)
    if not found.renames:
        return view, ""
    names = {name: found.renames.get(name, name) for name in view.entries}
    entries = {names[name]: source for name, source in view.entries.items()}
    aliases = {names.get(a, a): names.get(b, b) for a, b in view.aliases.items()}
    changes = "; ".join(_as_words(*change) for change in ((found.strip, found.add), *found.further))
    note = f"{view.reference}: {len(found.renames)} names read {changes} to match {donor.reference}."
    return replace(view, entries=entries, aliases=aliases), note


def _as_words(strip: str, add: str) -> str:
    return " and ".join(f"{verb} {part!r}" for verb, part in (("without", strip), ("with", add)) if part)
