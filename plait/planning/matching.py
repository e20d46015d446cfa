"""Experts matched before they are merged: `experts: {match: …}`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from plait.checkpoint.experts import Bank, Key, Matching, Slabs, find_banks, matched
from plait.checkpoint.io import FileReader
from plait.checkpoint.names import list_some
from plait.checkpoint.types import StoredTensor
from plait.dtypes import DTYPES
from plait.errors import Fault
from plait.planning.types import Plan, Source
from plait.planning.views import View
from plait.recipe.types import ExpertsSpec, Recipe
from plait.structure.configs import stated

__all__ = ["expert_orders", "match_experts"]

_ROUTING = re.compile(r"^(gate|router)$|router|e_score|moe_statics|expert")
_GROUPS = ("n_group", "num_expert_group")


def match_experts(recipe: Recipe, donor: View, view: View) -> tuple[View, list[Fault], list[str]]:
    """See a model's experts, and what its routers say of them, in the order of the donor's that they are most like.

    Which order that is takes weights to say; it is worked out when the first of them is read.

    Args:
        recipe: Has an `experts` section.
        donor: The model whose experts stay where they are.
        view: Another model that is merged, under the donor's names and with its layout of experts.
    """
    spec = recipe.experts
    if spec is None or view is donor:
        return view, [], []
    work = _Work(recipe, spec, donor, view)
    found = work.run()
    return (view if work.faults else found), work.faults, work.notes


@dataclass
class _Work:
    recipe: Recipe
    spec: ExpertsSpec
    donor: View
    view: View
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self) -> View:
        """Give every layer's experts a matching."""
        if not all(module.whole for module in self.recipe.modules):
            self._fault("experts: matching needs the same layers in all models", "Write `models`, not `slices`.")
            return self.view
        banks = find_banks(self.donor.shapes, self.donor.config)
        if not banks:
            self._fault(f"experts: {self.donor.reference} has none that plait knows by name", "Leave `experts` out.")
            return self.view
        groups = self._groups()
        entries = dict(self.view.entries)
        for bank in banks.values():
            if not self.faults:
                self._one(bank, groups, entries)
        counts = sorted({bank.count for bank in banks.values()})
        told = " or ".join(str(count) for count in counts)
        within = f", within their {groups} groups" if groups > 1 else ""
        self.notes.append(
            f"experts: {told} of {self.view.reference} in each of {len(banks)} layers, and the router's rows, will be "
            f"put in the order of those of {self.donor.reference} that they are most like by {self.spec.match}{within}; "
            "that reads them once more."
        )
        return replace(self.view, entries=entries)

    def _fault(self, message: str, hint: str = "") -> None:
        self.faults.append(Fault(f"{message}.", self.spec.where, hint))

    def _groups(self) -> int:
        """How many groups routing chooses among before it chooses experts; they must stay whole."""
        mine, theirs = (
            next((stated(v.config, key)[0] for key in _GROUPS if stated(v.config, key)), 1) for v in self._both
        )
        if mine != theirs:
            message = f"experts: {self.donor.reference} has {mine} groups of experts, {self.view.reference} {theirs}"
            self._fault(f"{message}; they cannot be matched")
        return int(mine)

    @property
    def _both(self) -> tuple[View, View]:
        return self.donor, self.view

    def _one(self, bank: Bank, groups: int, entries: dict[str, Source]) -> None:
        """Put one layer's experts and what follows them in a matching's hands."""
        weights = {f"{role} {kind}": self._names(bank, (role, kind)) for role, kind in bank.names}
        follow = {name: (name,) for name in self._followers(bank)}
        routers = [name for name in follow if len(self.donor.shapes[name]) == 2 and self.donor.shapes[name][1] > 1]
        if bank.count % groups or not routers:
            why = f"it has {bank.count} experts in {groups} groups" if routers else "no router is beside them"
            self._fault(f"experts: those in {bank.block} of {self.donor.reference} cannot be matched: {why}")
            return
        slabs = [
            {key: self._slabs(view, names, bank.count) for key, names in {**weights, **follow}.items()}
            for view in self._both
        ]
        if self.faults:
            return
        base, own = ({key: one for key, one in found.items() if one is not None} for found in slabs)
        lost = [key for key in (*weights, *routers) if key not in base or key not in own]
        if lost:
            self._fault(
                f"experts: {self.view.reference} lacks {list_some(lost, 4)} of {bank.block}, in that shape, so its experts cannot be matched"
            )
            return
        by = ((*weights,), (*routers,)) if self.spec.match == "weights" else ((*routers,),)
        matching = Matching(bank.block, own, base, by, groups)
        for key, one in own.items():
            for name, tensor in zip({**weights, **follow}[key], matched(one, matching), strict=True):
                entries[name] = Source(self.view.index, tensor)

    def _names(self, bank: Bank, key: Key) -> tuple[str, ...]:
        return tuple(bank.name(key, e) for e in range(1 if bank.is_stacked(key) else bank.count))

    def _followers(self, bank: Bank) -> Iterator[str]:
        """Find what has an entry or a row for each expert: the router, its bias, corrections of its scores."""
        for name in bank.others:
            inside = name.removeprefix(f"{bank.block}.").split(".")
            shape = self.donor.shapes[name]
            per_expert = shape in ((bank.count,), (1, bank.count)) or (len(shape) == 2 and shape[0] == bank.count)
            routing = any(_ROUTING.search(part) for part in inside) and not any("shared" in part for part in inside)
            if routing and per_expert:
                yield name
            elif routing and not DTYPES[self.donor.entries[name].dtype].is_float:
                self._fault(f"experts: {name} may tell experts by their numbers, so they cannot be matched")

    def _slabs(self, view: View, names: Sequence[str], count: int) -> Slabs | None:
        """Return the tensors of one kind of all experts; None where the model has not all of them."""
        if any(name not in view.entries for name in names):
            return None
        found: list[StoredTensor] = []
        for name in names:
            source = view.entries[name]
            if source.tensor is None:
                self._fault(f"experts: {view.reference} is made by an earlier document, and cannot be matched yet")
                return None
            if source.shape != self.donor.shapes[name]:
                return None  # told where shapes are compared
            found.append(source.tensor)
        kinds = {tensor.dtype for tensor in found}
        if len(kinds) > 1 or not DTYPES[found[0].dtype].is_float:
            told = ", ".join(sorted(DTYPES[kind].name for kind in kinds))
            self._fault(f"experts: {names[0]} and its like in {view.reference} are {told}, and cannot be matched")
            return None
        return Slabs(tuple(found), count)


def expert_orders(plan: Plan) -> dict[str, str]:
    """Return which experts of a matched model are seen one after the other, in numbers: by "model: block"."""
    found: dict[str, str] = {}
    with FileReader() as reader:
        for step in (*plan.stage_steps, *plan.steps):
            for source in step.inputs:
                matching = getattr(source.tensor.derived, "matching", None) if source.tensor else None
                if isinstance(matching, Matching):
                    key = f"{plan.models[source.model].reference}: {matching.block}"
                    found.setdefault(key, " ".join(str(e) for e in matching.order(reader)))
    return found
