"""Adapters as the models of a plan: every one has every module, its change a small matrix, zeros where it has none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from plait.adapters.merging.modules import Adapter, Joined, join, read_parts
from plait.adapters.merging.space import Core, Nothing, ScaledBias
from plait.checkpoint import Checkpoint, StoredTensor, dequantised, open_checkpoint, side_files
from plait.checkpoint.opening import open_adapter
from plait.errors import CheckpointError, Fault
from plait.planning.types import Model, Source
from plait.planning.views import Library, View
from plait.recipe.types import ModelRef, Recipe

__all__ = ["NO_BASE", "Models", "enter_views", "open_models"]

NO_BASE = ModelRef("(no change)")
"""What methods that work on differences are given as the base, where the recipe names none: zeros."""
_CONFIG = {"architectures": ["LoRA"]}  # the same for all, so that none is taken for another class of model


@dataclass
class Models:
    """Everything that a recipe with `adapter` names, opened."""

    library: Library
    adapters: list[Adapter] = field(default_factory=list)
    """Those to be merged in the order of the recipe; then a base that is one, then those only copied from."""
    joined: tuple[Joined, ...] = ()
    base: Checkpoint | None = None
    """The checkpoint that the recipe names as the base."""
    zeros: int | None = None
    """Index of the model that changes nothing: the base checkpoint, or what stands for one."""
    whole: dict[str, list[Adapter]] = field(default_factory=dict)
    """Tensor saved whole -> who has it."""
    notes: list[str] = field(default_factory=list)

    def tokenizer(self) -> tuple[int, Mapping[str, Path]]:
        """The first adapter whose folder has a tokenizer's files, and these; -1 where none has."""
        for adapter in self.adapters:
            files = side_files(Checkpoint(adapter.file.folder, adapter.reference, {}))
            if files:
                return adapter.model, files
        return -1, {}


def open_models(recipe: Recipe, library: Library) -> Models | None:
    """Open all, with what is wrong added to `library.faults`; None where nothing can be planned."""
    models = Models(library)
    before = len(library.faults)
    for reference in dict.fromkeys(_references(recipe)):
        _open_adapter(models, reference)
    if recipe.base_model is not None:
        _open_base(models, recipe.base_model)
    if len(library.faults) > before or not models.adapters:
        return None
    models.joined, wrong = join(models.adapters)
    library.faults += [Fault(f"{text}.", recipe.where) for text in wrong]
    for adapter in models.adapters:
        for name in adapter.whole:
            models.whole.setdefault(name, []).append(adapter)
    if models.base is not None:
        _check_base(models, models.base, recipe)
    return None if wrong else models


def _references(recipe: Recipe) -> Iterator[ModelRef]:
    for module in recipe.modules:
        for part in module.slices:
            yield from (given.model for given in part.sources)
    yield from (rule.copy_from for rule in recipe.tensors if rule.copy_from is not None)


def _open_adapter(models: Models, reference: ModelRef) -> None:
    library = models.library
    if reference.adapter:
        message = f"{reference}: where the output is an adapter, the models are adapters alone."
        library.faults.append(Fault(message, reference.where, f"Write {reference.adapter}."))
        return
    try:
        written = str(_place(library, reference) or reference.path)
        file = open_adapter(written, revision=reference.revision, root=library.root, commits=library.commits)
        adapter = read_parts(len(library.models), replace(file, reference=str(reference)))
    except CheckpointError as error:
        library.faults.append(Fault(str(error), reference.where))
        return
    known = adapter.file.settings
    ranks = sorted({known.rank_of(module) for module in adapter.sorted.modules})
    told = f"{len(adapter.sorted.modules)} modules, rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
    told += f", {len(adapter.whole)} tensors saved whole" if adapter.whole else ""
    notes = (*file.notes, f"{told}, on {known.base or 'a base that is not named'}.")
    library.models.append(Model(str(reference), file.folder, None, notes, local=_is_local(library, reference)))
    models.adapters.append(adapter)


def _place(library: Library, reference: ModelRef) -> Path | None:
    """Where a lock says that it lies."""
    place = library.places.get(reference.path)
    return place if place is not None and place.exists() else None


def _is_local(library: Library, reference: ModelRef) -> bool:
    written = Path(reference.path).expanduser()
    beside = library.root is not None and (library.root / written).exists()
    return _place(library, reference) is not None or written.exists() or beside


def _open_base(models: Models, reference: ModelRef) -> None:
    """Open the base: an adapter, whose change is then what others differ from, or the checkpoint under them all."""
    library = models.library
    if any(adapter.reference == str(reference) for adapter in models.adapters):
        return
    written = str(_place(library, reference) or reference.path)
    if reference.adapter is not None:
        message = f"{reference}: the base is a checkpoint, or an adapter, not one with an adapter on it."
        library.faults.append(Fault(message, reference.where))
        return
    try:
        if _is_adapter(written, reference, library):
            _open_adapter(models, reference)
            return
        opened = open_checkpoint(written, revision=reference.revision, root=library.root, commits=library.commits)
    except CheckpointError as error:
        hint = "If it is only to be named in the output, write it as `base_name` in `adapter`."
        library.faults.append(Fault(str(error), reference.where, hint))
        return
    models.base, models.zeros = dequantised(opened), len(library.models)
    library.models.append(Model(str(reference), opened.path, None, opened.notes, local=_is_local(library, reference)))


def _is_adapter(written: str, reference: ModelRef, library: Library) -> bool:
    try:
        open_adapter(written, revision=reference.revision, root=library.root, commits=library.commits)
    except CheckpointError:
        return False
    return True


def _check_base(models: Models, base: Checkpoint, recipe: Recipe) -> None:
    """Warn, by a fault, of adapters for another base: nothing of them would fit."""
    where = recipe.base_model.where if recipe.base_model else None
    missing = [one.weight for one in models.joined if one.weight not in base.tensors]
    if len(missing) == len(models.joined):
        sample = next((name for name in base.tensors if name.endswith("weight")), "")
        message = f"{base.reference} has none of the adapters' modules, such as {missing[0]}; its tensors are called like {sample}."
        models.library.faults.append(Fault(message, where, "Name the base under the names that the adapters have."))


def enter_views(models: Models, base: ModelRef | None) -> None:
    """Let the planner see each adapter as a model of all modules, and the base as one that changes nothing."""
    library = models.library
    for adapter in models.adapters:
        entries = _changes(models, adapter.model) | {
            name: Source(adapter.model, tensor)
            for name in models.whole
            if (tensor := _whole(models, name, adapter)) is not None
        }
        library.views[adapter.reference] = View(adapter.model, adapter.reference, _CONFIG, entries)
    if base is None or str(base) in library.views:
        return
    if models.zeros is None:
        models.zeros = len(library.models)
        notes = ("zeros, from which methods that work on differences take them.",)
        library.models.append(Model(str(base), Path(), None, notes))
    entries = _changes(models, models.zeros)
    for name, holders in models.whole.items():
        own = models.base.tensors.get(name) if models.base else None
        entries[name] = Source(models.zeros, own or holders[0].whole[name])
    library.views[str(base)] = View(models.zeros, str(base), _CONFIG, entries)


def _changes(models: Models, model: int) -> dict[str, Source]:
    entries: dict[str, Source] = {}
    for one in models.joined:
        index = next((i for i, part in enumerate(one.parts) if part.model == model), None)
        beside = one.parts[0].down
        made = Nothing(beside) if index is None else Core(one, index)
        entries[one.weight] = Source(
            model, StoredTensor(one.weight, "F32", one.core, beside.file, beside.offset, derived=made)
        )
        if one.biased:
            part = None if index is None else one.parts[index]
            own = part.bias if part else None
            scaled = ScaledBias(own, part.scaling) if own is not None and part is not None else Nothing(beside)
            entries[one.bias] = Source(
                model, StoredTensor(one.bias, "F32", (one.outputs,), beside.file, beside.offset, derived=scaled)
            )
    return entries


def _whole(models: Models, name: str, adapter: Adapter) -> StoredTensor | None:
    """What a model with the adapter has there: its own tensor, or the base's, where that is known."""
    own = adapter.whole.get(name)
    return own if own is not None or models.base is None else models.base.tensors.get(name)
