"""The names of an adapter's tensors: which module of the base each belongs to, and as what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from plait.checkpoint.types import StoredTensor
from plait.errors import CheckpointError

__all__ = ["Lora", "Sorted", "sort_tensors"]

_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.(?P<rest>[^.]+(?:\.(?:weight|bias))?))?"
)
_SAVED = re.compile(r"(?P<module>.+)\.modules_to_save\.(?P<rest>.+)")


@dataclass
class Lora:
    """The tensors of one adapted module, by part: down (A), up (B), bias (of B), magnitude (DoRA)."""

    parts: dict[str, StoredTensor] = field(default_factory=dict)
    embedding: bool = False


@dataclass
class Sorted:
    """All tensors of an adapter file."""

    modules: dict[str, Lora] = field(default_factory=dict)
    """By the module's name in peft's model, without peft's prefix."""
    whole: dict[str, tuple[StoredTensor, tuple[str, ...]]] = field(default_factory=dict)
    """Tensors saved whole: name in the file -> the tensor, and what it may be called in the base, likeliest first."""
    unread: list[str] = field(default_factory=list)
    """Copies of the base's own tensors, which are not needed."""


def sort_tensors(file: str, tensors: Mapping[str, StoredTensor]) -> Sorted:
    """Sort an adapter's tensors by what they are for.

    Raises:
        CheckpointError: a part is there twice (two adapters in one file).
    """
    found = Sorted()
    for name, tensor in tensors.items():
        short = name.removeprefix(_PREFIX)
        match = _PART.fullmatch(short)
        part = None if match is None else _part_of(match["part"], match["rest"])
        if match is None or part is None:
            _sort_whole(found, name, short, tensor)
            continue
        lora = found.modules.setdefault(match["module"], Lora())
        lora.embedding |= match["part"].startswith("lora_embedding")
        if part in lora.parts:
            raise CheckpointError(
                f"{file}: {lora.parts[part].name} and {name} are for the same module: two adapters in one file. Save "
                "each in a folder of its own."
            )
        lora.parts[part] = tensor
    return found


def _part_of(part: str, rest: str | None) -> str | None:
    """Return down, up, bias or magnitude; None for a name that peft does not write."""
    last = (rest or "weight").rpartition(".")[2]
    if part == "lora_B" and last == "bias":
        return "bias"
    if last == "bias":
        return None
    return {"A": "down", "B": "up"}.get(part[-1], "magnitude")


def _sort_whole(found: Sorted, name: str, short: str, tensor: StoredTensor) -> None:
    if ".original_module." in short:
        found.unread.append(name)
        return
    plain = short.replace(".base_layer.", ".")
    saved = _SAVED.fullmatch(plain)
    if saved is None:
        found.whole[name] = (tensor, (plain,))
        return
    rest = saved["rest"]
    without_adapter = rest.partition(".")[2]
    options = (without_adapter, rest) if without_adapter else (rest,)
    found.whole[name] = (tensor, tuple(f"{saved['module']}.{option}" for option in options))
