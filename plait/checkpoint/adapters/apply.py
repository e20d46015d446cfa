"""An adapter on its base, seen as a checkpoint: every tensor of the adapter is placed, or it is a fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from plait.checkpoint.adapters.derived import AddedBias, LowRank
from plait.checkpoint.adapters.names import Lora, Sorted, sort_tensors
from plait.checkpoint.adapters.settings import LoraSettings
from plait.checkpoint.names import in_natural_order, list_some
from plait.checkpoint.types import Checkpoint, StoredTensor
from plait.dtypes import DTYPES
from plait.errors import CheckpointError
from plait.structure import align, declared_tie, embedding_and_heads

__all__ = ["AdapterFile", "put_on"]


@dataclass(frozen=True)
class AdapterFile:
    """An adapter's headers."""

    reference: str
    """What the user wrote."""
    folder: Path
    file: str
    """The file of its tensors."""
    tensors: Mapping[str, StoredTensor]
    settings: LoraSettings
    notes: tuple[str, ...] = ()


def put_on(base: Checkpoint, adapter: AdapterFile) -> Checkpoint:
    """Show `base` with `adapter` on it. Tensors that the adapter leaves alone stay the base's own, bytes and all.

    Raises:
        CheckpointError: a tensor of the adapter fits none of the base, or is not of the shape or rank that it must be.
    """
    return _Placing(base, adapter, sort_tensors(adapter.file, adapter.tensors)).checkpoint()


@dataclass
class _Placing:
    base: Checkpoint
    adapter: AdapterFile
    sorted: Sorted
    made: dict[str, StoredTensor] = field(default_factory=dict)
    """The base's tensors that the adapter changes, as they then are."""
    notes: list[str] = field(default_factory=list)

    def checkpoint(self) -> Checkpoint:
        self._check_parts()
        targets = self._targets()
        self._check_names(targets)
        follows = self._head_that_follows(targets)
        for name, (tensor, _) in self.sorted.whole.items():
            if name not in follows:
                self._replace(targets[name], tensor)
        ranks: Counter[int] = Counter()
        for module, lora in self.sorted.modules.items():
            if module in follows:
                continue
            ranks[self._adapt(module, lora, targets)] += 1
        aliases = self._aliases()
        config = self._settle_ties({key: name for key, name in targets.items() if key not in follows})
        told = f"adapter {self.adapter.reference} on {self.base.reference}: {_told(ranks, len(self.sorted.whole.keys() - follows))}"
        return replace(
            self.base,
            tensors=in_natural_order({**self.base.tensors, **self.made}.values()),
            config=config,
            aliases=aliases,
            notes=(*self.base.notes, *self.adapter.notes, told, *self.notes),
            adapters=(*self.base.adapters, self.adapter.folder),
            left_out={**self.base.left_out, **self._left_out(follows)},
        )

    def _left_out(self, follows: Collection[str]) -> dict[str, str]:
        """What of the adapter's tensors is not read, and why."""
        reasons = dict.fromkeys(self.sorted.unread, "the adapter's copy of a tensor of its base")
        why = "the head is tied to the embeddings, which the adapter changes alike (ensure_weight_tying)"
        for key in follows:
            lora = self.sorted.modules.get(key)
            tensors = lora.parts.values() if lora else [self.sorted.whole[key][0]]
            reasons |= {tensor.name: why for tensor in tensors}
        read = {(held.file, held.offset) for made in self.made.values() for held in made.held}
        gone = [one for name in self.made if (one := self.base.tensors.get(name)) and not _is_read(one, read)]
        return reasons | {one.name: f"the adapter {self.adapter.reference} has it whole" for one in gone}

    def _head_that_follows(self, targets: Mapping[str, str]) -> frozenset[str]:
        """The keys of a head that the adapter has beside its embeddings and, by its config, tied to them."""
        if not self.adapter.settings.ties or declared_tie(self.base.config) is False:
            return frozenset()
        shapes: dict[str, tuple[int, ...]] = {}
        for key, name in targets.items():
            if key in self.sorted.whole:
                shapes[name] = self.sorted.whole[key][0].shape
            elif key in self.sorted.modules:
                shapes[name] = _shape_of(self.sorted.modules[key])
        embeddings, heads = embedding_and_heads(_shapes(self.base) | shapes, self.base.config)
        twins = {head for head in heads if any(shapes.get(name) == shapes.get(head) for name in embeddings)}
        return frozenset(key for key, name in targets.items() if name in twins & shapes.keys())

    def _fault(self, message: str) -> CheckpointError:
        return CheckpointError(f"{self.adapter.file}: {message}")

    def _check_parts(self) -> None:
        """Refuse modules that lack a part, and parts of a kind that the config does not speak of."""
        dora = self.adapter.settings.dora
        for module, lora in self.sorted.modules.items():
            lacking = [part for part in ("down", "up") if part not in lora.parts]
            if lacking:
                there = ", ".join(tensor.name for tensor in lora.parts.values())
                letters = " and ".join({"down": "A", "up": "B"}[part] for part in lacking)
                raise self._fault(f"{module} has {there}, but no {letters}; the file is not whole.")
            if dora != ("magnitude" in lora.parts):
                has = "no magnitude vector" if dora else f"{lora.parts['magnitude'].name}"
                raise self._fault(
                    f"{module} has {has}, but {self.adapter.settings.file} says use_dora: {str(dora).lower()}."
                )
        if self.sorted.unread:
            copies = list_some(self.sorted.unread)
            self.notes.append(
                f"adapter {self.adapter.reference}: copies of the base's own tensors, not read: {copies}."
            )

    def _targets(self) -> dict[str, str]:
        """For every module and every tensor saved whole: what it is called in the base."""
        here = self.base.tensors
        wanted: dict[str, str] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for module, lora in self.sorted.modules.items():
            wanted[module] = f"{module}.weight"
            shapes[wanted[module]] = _shape_of(lora)
            if "bias" in lora.parts:
                wanted[f"{module}.bias"] = f"{module}.bias"
                shapes[f"{module}.bias"] = lora.parts["bias"].shape
        for name, (tensor, options) in self.sorted.whole.items():
            wanted[name] = next((option for option in options if option in here), options[0])
            shapes[wanted[name]] = tensor.shape
        if all(name in here for name in wanted.values()):
            return wanted
        found = align(self._shapes_to_fit(shapes), shapes)
        if found.renames:
            self.notes.append(
                f"adapter {self.adapter.reference}: {len(found.renames)} names read "
                f"{'without ' + repr(found.strip) if found.strip else ''}"
                f"{' and ' if found.strip and found.add else ''}{'with ' + repr(found.add) if found.add else ''} "
                f"to match {self.base.reference}."
            )
        return {key: found.renames.get(name, name) for key, name in wanted.items()}

    def _shapes_to_fit(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """The base's shapes, those turned round that an adapter may have turned round."""
        turned = set(shapes.values())
        return {
            name: tensor.shape[::-1] if tensor.shape not in turned and tensor.shape[::-1] in turned else tensor.shape
            for name, tensor in self.base.tensors.items()
        }

    def _check_names(self, targets: Mapping[str, str]) -> None:
        """Refuse tensors that fit nothing; a head that the base ties to its embedding is something."""
        head = self._tied_head(targets)
        lost = [key for key, name in targets.items() if name not in self.base.tensors and name != head]
        if lost:
            names = [
                tensor.name
                for key in lost
                for tensor in (
                    self.sorted.modules[key].parts.values()
                    if key in self.sorted.modules
                    else [self.sorted.whole[key][0]]
                    if key in self.sorted.whole
                    else [self.sorted.modules[key.rpartition(".")[0]].parts["bias"]]
                )
            ]
            sample = next((name for name in self.base.tensors if name.endswith("weight")), "")
            raise self._fault(
                f"{len(names)} tensors fit none of {self.base.reference}: {list_some(names)}. The base's are called like "
                f"{sample}. The adapter was made for another base"
                f"{f' ({self.adapter.settings.base})' if self.adapter.settings.base else ''}, or for one with a head of "
                "its own."
            )
        twice = [name for name, count in Counter(targets[key] for key in self.sorted.whole).items() if count > 1]
        if twice:
            raise self._fault(f"two tensors are to replace {list_some(twice)}.")

    def _tied_head(self, targets: Mapping[str, str]) -> str | None:
        """The name of a head that is in the adapter but not in the base's files, which tie it to the embedding."""
        embeddings, heads = embedding_and_heads(_shapes(self.base), self.base.config)
        if heads or not embeddings or declared_tie(self.base.config) is False:
            return None
        shape = self.base.tensors[embeddings[0]].shape
        for key, name in targets.items():
            lora = self.sorted.modules.get(key)
            own = self.sorted.whole[key][0].shape if key in self.sorted.whole else _shape_of(lora) if lora else None
            if name not in self.base.tensors and own == shape and name.endswith(".weight") and name.count(".") == 1:
                return name
        return None

    def _replace(self, name: str, tensor: StoredTensor) -> None:
        """Put a tensor that the adapter has whole in the place of the base's."""
        old = self.base.tensors.get(name) or self._embedding()
        if tensor.shape != old.shape:
            rows = tensor.shape[1:] == old.shape[1:] and len(tensor.shape) == 2
            hint = " The vocabulary was resized: resize the base's first, and name that." if rows else ""
            raise self._fault(
                f"{tensor.name} is {list(tensor.shape)}, but replaces {name}, {list(old.shape)} in "
                f"{self.base.reference}.{hint}"
            )
        self.made[name] = replace(tensor, name=name, native=old.native or old.dtype)

    def _embedding(self) -> StoredTensor:
        return self.base.tensors[embedding_and_heads(_shapes(self.base), self.base.config)[0][0]]

    def _adapt(self, module: str, lora: Lora, targets: Mapping[str, str]) -> int:
        """Put one module's LoRA on its weight, and on its bias; returns its rank."""
        name = targets[module]
        weight = self.made.get(name) or self.base.tensors.get(name) or self._embedding()
        down, up = lora.parts["down"], lora.parts["up"]
        rank, scaling = self._rank(module, lora), self.adapter.settings.scaling(module)
        transposed = self._is_transposed(lora, weight, name)
        for tensor in (weight, *lora.parts.values()):
            if not DTYPES[tensor.dtype].is_float:
                raise self._fault(f"{tensor.name} is {DTYPES[tensor.dtype].name}; {module} needs numbers to add to.")
        magnitude = lora.parts.get("magnitude")
        outputs = up.shape[0]
        if magnitude is not None and magnitude.size != outputs:
            raise self._fault(f"{magnitude.name} has {magnitude.size} numbers; {module} has {outputs} outputs.")
        derived = LowRank(weight, down, up, scaling, transposed, magnitude)
        self.made[name] = _made(weight, name, derived)
        if bias := lora.parts.get("bias"):
            at = targets[f"{module}.bias"]
            old = self.made.get(at) or self.base.tensors[at]
            if old.shape != bias.shape:
                raise self._fault(f"{bias.name} is {list(bias.shape)}, {at} is {list(old.shape)}.")
            self.made[at] = _made(old, at, AddedBias(old, bias, scaling))
        return rank

    def _rank(self, module: str, lora: Lora) -> int:
        """The rank that both factors have, and that the config must state, for the scaling is read off it."""
        down, up, stated = lora.parts["down"], lora.parts["up"], self.adapter.settings.rank_of(module)
        if len(down.shape) < 2 or len(up.shape) < 2 or down.shape[0] != up.shape[1] or prod(up.shape[2:]) != 1:
            raise self._fault(f"{down.name} {list(down.shape)} and {up.name} {list(up.shape)} are no two factors.")
        if stated != down.shape[0]:
            raise self._fault(
                f"{down.name} has rank {down.shape[0]}, but {self.adapter.settings.file} says {stated} (r, rank_pattern); "
                "the scaling would be wrong."
            )
        return stated

    def _is_transposed(self, lora: Lora, weight: StoredTensor, name: str) -> bool:
        down, up = lora.parts["down"], lora.parts["up"]
        plain = (up.shape[0], *down.shape[1:])
        turned = plain[::-1] if len(plain) == 2 else None
        if weight.shape not in {plain, turned}:
            raise self._fault(f"{down.name} and {up.name} make {list(plain)}; {name} is {list(weight.shape)}.")
        if plain == turned:  # a square matrix: only the config tells
            return lora.embedding or self.adapter.settings.transposed
        return weight.shape == turned

    def _settle_ties(self, targets: Mapping[str, str]) -> Mapping[str, Any] | None:
        """Say what becomes of a head that the base ties to its embedding; returns the config."""
        config, written = self.base.config, set(targets.values())
        embeddings, heads = embedding_and_heads(_shapes(self.base) | {n: t.shape for n, t in self.made.items()}, config)
        tied = declared_tie(config)
        own = [head for head in heads if head in written]
        if (
            own
            and embeddings
            and tied is not False
            and (tied or own[0] not in self.base.tensors.keys() - self.base.aliases)
        ):
            said = f"adapter {self.adapter.reference}: {own[0]} is tied to {embeddings[0]} in {self.base.reference}"
            self.notes.append(f"{said}; the adapter changes it by itself, so it is read as a head of its own, untied.")
            return _untied(config)
        if tied and not own and (changed := [name for name in embeddings if name in written]):
            said = f"adapter {self.adapter.reference}: the head is tied to {changed[0]}, which the adapter changes"
            self.notes.append(f"{said}; the head follows it, as in peft's merge_and_unload.")
        return config

    def _aliases(self) -> dict[str, str]:
        """Names that are still another's bytes: those whose tensor is changed under one name only follow it."""
        aliases = {}
        for name, kept in self.base.aliases.items():
            if name in self.made:
                continue
            if kept in self.made:
                self.made[name] = replace(self.made[kept], name=name)
            aliases[name] = kept
        return aliases


def _untied(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    changed = dict(config or {}) | {"tie_word_embeddings": False}
    for key, part in changed.items():
        if isinstance(part, dict) and "tie_word_embeddings" in part:
            changed[key] = part | {"tie_word_embeddings": False}
    return changed


def _made(old: StoredTensor, name: str, derived: LowRank | AddedBias) -> StoredTensor:
    code = "F64" if old.dtype == "F64" else "F32"
    return replace(old, name=name, dtype=code, strides=None, derived=derived, native=old.native or old.dtype)


def _is_read(tensor: StoredTensor, read: Collection[tuple[str, int]]) -> bool:
    return any((held.file, held.offset) in read for held in tensor.held)


def _shape_of(lora: Lora) -> tuple[int, ...]:
    """The shape of the weight that a LoRA is for, if it is not transposed; an embedding's is."""
    down, up = lora.parts["down"].shape, lora.parts["up"].shape
    return (down[-1], up[0]) if lora.embedding else (up[0], *down[1:])


def _shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in checkpoint.tensors.items()}


def _told(ranks: Counter[int], whole: int) -> str:
    """Write "32 modules, rank 16".

    >>> _told(Counter({16: 32}), 0), _told(Counter({8: 1, 4: 2}), 1)
    ('32 modules, rank 16.', '3 modules, ranks 4 and 8, 1 tensor replaced.')
    """
    count = sum(ranks.values())
    texts = [f"{count} module{'s' if count != 1 else ''}"]
    if ranks:
        texts.append(f"rank{'s' if len(ranks) > 1 else ''} {' and '.join(map(str, sorted(ranks)))}")
    if whole:
        texts.append(f"{whole} tensor{'s' if whole > 1 else ''} replaced")
    return ", ".join(texts) + "."
