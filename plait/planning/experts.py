"""Experts that the models store in different layouts, seen in the donor's."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from plait.checkpoint.experts import Bank, find_banks, needs_rearranging, rearranged
from plait.checkpoint.names import list_some
from plait.checkpoint.types import StoredTensor
from plait.errors import CheckpointError, Fault
from plait.planning.types import Source
from plait.planning.views import View
from plait.recipe.types import Recipe
from plait.structure.configs import is_language_key

__all__ = ["lay_out_experts"]

_OUT = "Save one of the models in the other's layout first."


def lay_out_experts(
    recipe: Recipe, donor: View, view: View, merged: Collection[str]
) -> tuple[View, list[Fault], list[str]]:
    """See a model's experts as the donor stores its own; return the model, what is wrong, and notes.

    Args:
        recipe: Says where faults are.
        donor: The model whose layout the output has.
        view: Another model, under its own names.
        merged: References of the models that are merged, and not only copied from.
    """
    pattern = find_banks(donor.shapes, donor.config)
    if not pattern:
        return view, [], []
    work = _Work(recipe, donor, view, view.reference in merged, pattern)
    return work.run(), work.faults, work.notes()


@dataclass
class _Work:
    recipe: Recipe
    donor: View
    view: View
    merged: bool
    pattern: Mapping[str, Bank]
    faults: list[Fault] = field(default_factory=list)
    told: dict[tuple[str, str, int], list[str]] = field(default_factory=dict)
    """(how they are stored, how they are read, how many) -> blocks."""
    problems: dict[str, list[str]] = field(default_factory=dict)
    """Why -> blocks."""

    def run(self) -> View:
        """Lay out every bank that needs it."""
        found = find_banks(self.view.shapes, self.view.config)
        pairs = [(bank, like) for bank in found.values() if (like := self._counterpart(bank)) is not None]
        if self.merged and self._counts_differ(pairs):
            return self.view
        entries, names = dict(self.view.entries), dict[str, str]()
        for bank, like in pairs:
            if bank.count == like.count and needs_rearranging(bank, like):
                self._one(bank, like, entries, names)
        for why, blocks in self.problems.items():
            message = f"{self.view.reference} stores its experts in another layout than {self.donor.reference}, and"
            self.faults.append(Fault(f"{message} {why} ({list_some(blocks, 4)}).", self.recipe.where, _OUT))
        if self.faults or not self.told:
            return self.view
        aliases = {names.get(a, a): names.get(b, b) for a, b in self.view.aliases.items()}
        return replace(self.view, entries=entries, aliases=aliases)

    def _counterpart(self, bank: Bank) -> Bank | None:
        """The donor's bank in the same place, or else in another layer of the same stack."""
        prefix, index, inside = bank.place
        best, key = None, (0, False, False)
        for like in self.pattern.values():
            other, number, their_inside = like.place
            # A vision tower's experts are no counterpart of a language model's.
            if bool(inside) != bool(their_inside) or is_language_key(prefix) != is_language_key(other):
                continue
            now = (1 + _common_end(prefix, other), inside == their_inside, number == index)
            best, key = (like, now) if now > key else (best, key)
        return best

    def _counts_differ(self, pairs: list[tuple[Bank, Bank]]) -> bool:
        """Refuse models with different numbers of experts; by layer, where whole models are merged."""
        whole = all(module.whole for module in self.recipe.modules)
        theirs = {like.count for like in self.pattern.values()}
        for bank, like in pairs:
            same_layer = whole and bank.place[1] == like.place[1]
            if bank.count != like.count if same_layer else bank.count not in theirs:
                message = (
                    f"{self.view.reference} has {bank.count} experts in {bank.block}, "
                    f"{self.donor.reference} has {like.count} in {like.block}."
                )
                hint = "Models with different numbers of experts cannot be merged."
                self.faults.append(Fault(message, self.recipe.where, hint))
                return True
        return False

    def _one(self, bank: Bank, like: Bank, entries: dict[str, Source], names: dict[str, str]) -> None:
        """Lay out the experts of one block in `entries`; `names` gets what else of the block is called otherwise."""
        stored: dict[str, StoredTensor] = {}
        for name in bank.tensors():
            tensor = entries[name].tensor if name in entries else None
            if tensor is None:
                why = "it is made by an earlier document, whose experts cannot be laid out anew yet"
                self.problems.setdefault(why if name in entries else f"{name} is missing", []).append(bank.block)
                return
            stored[name] = tensor
        try:
            made = rearranged(stored, bank, like, self.view.reference)
        except CheckpointError as error:
            self.problems.setdefault(str(error), []).append(bank.block)
            return
        for name in stored:
            del entries[name]
        entries.update({name: Source(self.view.index, tensor) for name, tensor in made.items()})
        renames = self._renames(bank, like)
        for name, new in renames.items():
            source = entries.pop(name)
            entries[new] = replace(source, tensor=replace(source.tensor, name=new)) if source.tensor else source
        names.update(renames)
        self.told.setdefault((bank.told(), like.told(), bank.count), []).append(bank.block)

    def _renames(self, bank: Bank, like: Bank) -> dict[str, str]:
        """What else is in the block (router, shared experts), by the donor's name for it."""
        mine = {name.removeprefix(f"{bank.block}."): name for name in bank.others}
        theirs = {name.removeprefix(f"{like.block}."): self.donor.shapes[name] for name in like.others}
        inside, their_inside = bank.place[2], like.place[2]
        above = bank.block.removesuffix(inside).rstrip(".") if inside else bank.block
        new = {suffix: suffix for suffix in mine}
        for suffix in [one for one in mine if one not in theirs]:
            shape = self.view.shapes[mine[suffix]]
            alike = [one for one in theirs if one not in mine and theirs[one] == shape and bank.count in shape]
            rivals = [one for one in mine if one not in theirs and self.view.shapes[mine[one]] == shape]
            if len(alike) == len(rivals) == 1:
                new[suffix] = alike[0]
        found = {
            own: ".".join(part for part in (above, their_inside, new[suffix]) if part) for suffix, own in mine.items()
        }
        return {own: name for own, name in found.items() if own != name}

    def notes(self) -> list[str]:
        """Say what was laid out, and how."""
        return [
            f"{self.view.reference}: {count} experts in each of {len(blocks)} layers, stored as {stored}, "
            f"are read as {read}, the layout of {self.donor.reference}."
            for (stored, read, count), blocks in self.told.items()
        ]


def _common_end(one: str, two: str) -> int:
    """How many segments at the end of two dotted names are the same."""
    pairs = zip(reversed(one.split(".")), reversed(two.split(".")), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(one.count("."), two.count(".")) + 1)
