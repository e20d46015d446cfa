"""Accounting for every input tensor: what nothing reads is listed with its reason, and models in vain are refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from plait.checkpoint.names import list_some
from plait.errors import Fault
from plait.planning.decide import Decisions
from plait.planning.extra import Extras
from plait.planning.slots import Laid
from plait.planning.types import Dropped
from plait.planning.views import View
from plait.recipe.types import Recipe
from plait.structure import locate

__all__ = ["Account"]


@dataclass(frozen=True)
class Account:
    """The models of one document and what became of them."""

    recipe: Recipe
    donor: View
    views: Mapping[str, View]
    """As they were before tied heads were added to them: every tensor that is stored, under the output's names."""
    inputs: Collection[str]
    """References of the models that are merged; others are there for `copy_from` or as a slice's base alone."""
    tied: Mapping[str, str]
    laid: Sequence[Laid]

    def drop_rest(self, decisions: Decisions) -> list[Dropped]:
        """List every input tensor that nothing has accounted for; returns those that the user did not ask to lose."""
        taken = self._layers_taken()
        surprising = []
        for key, view in self.views.items():
            for name, source in view.entries.items():
                if (source.model, source.name) in decisions.used:
                    continue
                decisions.used.add((source.model, source.name))
                reason, asked_for = self._why(key, view, name, taken)
                drop = Dropped(view.reference, source.name, reason)
                decisions.dropped.append(drop)
                surprising += [] if asked_for else [drop]
        return surprising

    def _why(self, key: str, view: View, name: str, taken: Collection[tuple[int, str, int]]) -> tuple[str, bool]:
        """Return why a tensor is dropped, and whether the recipe or the config asks for it."""
        if name in self.tied or name in view.aliases:
            return f"tied to {self.tied.get(name) or view.aliases[name]}", True
        if key not in self.inputs:
            return "only what the recipe names is taken from this model", True
        at = locate(name)
        stacks = {laid.stack.prefix for laid in self.laid if laid.stack is not None}
        if at is not None and at.prefix in stacks and (view.index, at.prefix, at.index) not in taken:
            return "no slice takes this layer", True
        if stacks and name in self.donor.entries:
            return "outside the layers the first and the last slice give the output's tensors", True
        if view is not self.donor and name in view.entries and name in self.donor.entries:
            return "its config ties it", True
        return self._why_extra(view, name, sliced=at is not None and at.prefix in stacks), False

    def _why_extra(self, view: View, name: str, *, sliced: bool) -> str:
        """Return why the output does not have what the donor has not."""
        if sliced:
            return "its layer follows the first model of the slice, which has no such tensor"
        why_not = Extras(self.donor, self.tied).why_not(view, name)
        return why_not or f"the output follows {self.donor.reference}, which has no such tensor"

    def _layers_taken(self) -> set[tuple[int, str, int]]:
        taken = set()
        for laid in self.laid:
            for given, view in (pair for inputs in laid.pairs for pair in inputs):
                if laid.stack is not None and given is not None and given.layer_range is not None:
                    taken |= {(view.index, laid.stack.prefix, index) for index in range(*given.layer_range)}
        return taken

    def ignored(self, decisions: Decisions) -> list[Fault]:
        """Refuse models of which nothing reaches the output's values."""
        faults = []
        for key, view in self.views.items():
            if view.index in decisions.merged_models or view is self.donor:
                continue
            if key not in self.inputs and not self._copied(key):
                continue
            message = f"{key} would be ignored: none of its tensors is merged with {self.donor.reference}'s."
            shared = len(view.entries.keys() & self.donor.entries.keys())
            mine, theirs = next(iter(view.entries), "nothing"), next(iter(self.donor.entries), "nothing")
            hint = f"They share {shared} names; it has {mine}, {self.donor.reference} has {theirs}."
            faults.append(Fault(message, self.recipe.where, hint))
        return faults

    def _copied(self, key: str) -> bool:
        return any(str(rule.copy_from) == key for rule in self.recipe.tensors)

    def judge_partial(self, decisions: Decisions, surprising: Sequence[Dropped]) -> tuple[list[Fault], list[Fault]]:
        """Tell of tensors that only some models have: as faults when the recipe is strict, else as warnings."""
        where, hint = self.recipe.where, "Add a `tensors:` rule (copy_from, drop), or leave out `strict`."
        told = []
        for reason, names in decisions.partial.items():
            told.append(f"{_count(names)} copied, not merged ({reason}): {list_some(names, 4)}.")
        by_model: dict[tuple[str, str], list[str]] = {}
        for drop in surprising:
            by_model.setdefault((drop.model, drop.reason), []).append(drop.name)
        for (model, reason), names in by_model.items():
            told.append(f"{_count(names)} of {model} dropped ({reason}): {list_some(names, 4)}.")
        if self.recipe.strict:
            return [Fault(f"strict: {text}", where, hint) for text in told], []
        return [], [Fault(text, where) for text in told]


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''}"
