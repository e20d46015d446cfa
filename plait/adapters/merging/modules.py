"""What adapters change: their factors module by module, and what they save whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from plait.checkpoint import StoredTensor, natural_key
from plait.checkpoint.adapters.apply import AdapterFile
from plait.checkpoint.adapters.names import Lora, Sorted, sort_tensors
from plait.checkpoint.config import read_json
from plait.dtypes import DTYPES
from plait.errors import CheckpointError

__all__ = ["Adapter", "Joined", "Part", "join", "read_parts"]


@dataclass(frozen=True, slots=True)
class Part:
    """One adapter's share in a module: scaling * up @ down, and scaling * bias."""

    model: int
    """Index of the adapter among the plan's models."""
    down: StoredTensor
    """A, `[rank, in]` or `[rank, in, *kernel]`."""
    up: StoredTensor
    """B, `[out, rank]` or `[out, rank, 1, …]`."""
    scaling: float
    bias: StoredTensor | None = None
    """`[out]`, or None."""

    @property
    def rank(self) -> int:
        """Inner size of the product."""
        return self.down.shape[0]


@dataclass(frozen=True, slots=True)
class Joined:
    """A module, and the share of every adapter that has it, in the order of the recipe."""

    name: str
    embedding: bool
    parts: tuple[Part, ...]

    @property
    def weight(self) -> str:
        """The tensor that it changes."""
        return f"{self.name}.weight"

    @property
    def bias(self) -> str:
        """What its biases go by in the plan."""
        return f"{self.name}.lora_B.bias"

    @property
    def outputs(self) -> int:
        """Rows of up."""
        return self.parts[0].up.shape[0]

    @property
    def inputs(self) -> tuple[int, ...]:
        """Shape of a row of down."""
        return self.parts[0].down.shape[1:]

    @property
    def total(self) -> int:
        """All ranks together."""
        return sum(part.rank for part in self.parts)

    @property
    def core(self) -> tuple[int, int]:
        """Shape of a change in the space that all adapters span."""
        return min(self.outputs, self.total), min(prod(self.inputs), self.total)

    @property
    def biased(self) -> bool:
        """Whether some adapter has a bias of B here."""
        return any(part.bias is not None for part in self.parts)


@dataclass(frozen=True)
class Adapter:
    """An adapter that was opened, checked, and is one of the plan's models."""

    model: int
    file: AdapterFile
    sorted: Sorted
    config: Mapping[str, Any]
    """adapter_config.json as it is."""

    @property
    def reference(self) -> str:
        """What the recipe calls it."""
        return self.file.reference

    @property
    def whole(self) -> dict[str, StoredTensor]:
        """Tensors saved whole, by the base's likeliest name for them."""
        return {
            options[0]: tensor
            for tensor, options in self.sorted.whole.values()
            if not self._is_copy(tensor, options[0])
        }

    @property
    def copies(self) -> dict[str, StoredTensor]:
        """Weights that factors are added to, which peft saves beside those of embeddings and heads; by module."""
        return {
            options[0].removesuffix(".weight"): tensor
            for tensor, options in self.sorted.whole.values()
            if self._is_copy(tensor, options[0])
        }

    def _is_copy(self, tensor: StoredTensor, name: str) -> bool:
        return tensor.name.endswith(".base_layer.weight") and name.removesuffix(".weight") in self.sorted.modules


def read_parts(model: int, file: AdapterFile) -> Adapter:
    """Sort an adapter's tensors, and check that they are a plain LoRA's.

    Raises:
        CheckpointError: a factor is missing or of the wrong rank; or it is DoRA, which is no sum of changes.
    """
    if file.settings.dora:
        raise CheckpointError(
            f"{file.settings.file}: DoRA (use_dora): what it changes depends on the base's weights, so it cannot be merged "
            "into an adapter. Merge models (base+adapter) into a model, and take `plait extract` of that."
        )
    found = sort_tensors(file.file, file.tensors)
    for module, lora in found.modules.items():
        _check(file, module, lora)
    adapter = Adapter(model, file, found, read_json(file.settings.file))
    twice = sorted({f"{module}.weight" for module in found.modules} & adapter.whole.keys())
    if twice:
        raise CheckpointError(f"{file.file}: {twice[0]} is saved whole, and has factors besides.")
    return adapter


def _check(file: AdapterFile, module: str, lora: Lora) -> None:
    down, up = lora.parts.get("down"), lora.parts.get("up")
    if down is None or up is None or "magnitude" in lora.parts:
        there = ", ".join(tensor.name for tensor in lora.parts.values())
        raise CheckpointError(
            f"{file.file}: {module} has {there}; A and B were expected, and at most a bias of B besides."
        )
    if len(down.shape) < 2 or len(up.shape) < 2 or down.shape[0] != up.shape[1] or up.size != up.shape[0] * up.shape[1]:
        raise CheckpointError(
            f"{file.file}: {down.name} {list(down.shape)} and {up.name} {list(up.shape)} are no two factors."
        )
    stated = file.settings.rank_of(module)
    if stated != down.shape[0]:
        raise CheckpointError(
            f"{file.file}: {down.name} has rank {down.shape[0]}, but {file.settings.file} says {stated} (r, rank_pattern); "
            "the scaling would be wrong."
        )
    for tensor in lora.parts.values():
        if not DTYPES[tensor.dtype].is_float:
            raise CheckpointError(f"{file.file}: {tensor.name} is {DTYPES[tensor.dtype].name}; numbers were expected.")


def join(adapters: Sequence[Adapter]) -> tuple[tuple[Joined, ...], list[str]]:
    """Put the adapters' shares together, module by module in natural order; and say which do not fit each other."""
    shares: dict[str, list[tuple[Adapter, Lora]]] = {}
    for adapter in adapters:
        for name, lora in adapter.sorted.modules.items():
            shares.setdefault(name, []).append((adapter, lora))
    joined, faults = [], list(_held_twice(adapters))
    for name in sorted(shares, key=natural_key):
        first, lora = shares[name][0]
        for other, theirs in shares[name][1:]:
            if _form(theirs) != _form(lora):
                faults.append(
                    f"{name} makes {_told(lora)} in {first.reference}, {_told(theirs)} in {other.reference}: adapters of "
                    "different bases, or of different vocabularies, cannot be merged"
                )
        parts = tuple(_part(adapter, name, lora) for adapter, lora in shares[name])
        joined.append(Joined(name, lora.embedding, parts))
    return tuple(joined), faults


def _held_twice(adapters: Sequence[Adapter]) -> Iterator[str]:
    """A tensor that one adapter saves whole and another has factors for: only the base could tell what these come to."""
    for one in adapters:
        for other in adapters:
            both = sorted(name for name in one.whole if name.removesuffix(".weight") in other.sorted.modules)
            if both and one is not other:
                yield (
                    f"{both[0]} is saved whole by {one.reference}, and {other.reference} has factors for it: that depends on "
                    "the base; merge models (base+adapter) into a model, and take `plait extract` of that"
                )


def _form(lora: Lora) -> tuple[object, ...]:
    return lora.embedding, lora.parts["up"].shape[0], lora.parts["down"].shape[1:], len(lora.parts["up"].shape)


def _told(lora: Lora) -> str:
    return str([lora.parts["up"].shape[0], *lora.parts["down"].shape[1:]])


def _part(adapter: Adapter, name: str, lora: Lora) -> Part:
    scaling = adapter.file.settings.scaling(name)
    return Part(adapter.model, lora.parts["down"], lora.parts["up"], scaling, lora.parts.get("bias"))
