"""What an extraction came to, for programs and in the adapter's card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path

__all__ = ["Extraction", "ModuleRank", "card_of"]


@dataclass(frozen=True, slots=True)
class ModuleRank:
    """How a linear layer's delta was kept."""

    module: str
    shape: tuple[int, int]
    """Of the weight as stored."""
    rank: int
    error: float
    """Relative: Frobenius norm of what is missing over that of the delta."""
    norm: float
    """Frobenius norm of the delta."""


@dataclass(frozen=True)
class Extraction:
    """An adapter that was extracted."""

    path: Path
    base: str
    model: str
    modules: tuple[ModuleRank, ...]
    """Those with factors, in natural order."""
    saved: tuple[str, ...]
    """Modules saved whole, and biases saved beside factors."""
    unchanged: int
    """How many tensors are the base's."""
    nbytes: int
    """Bytes of the adapter's weights file."""
    seconds: float
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Tensor that differs, or was not looked at, and is not in the adapter -> reason."""

    @property
    def error(self) -> float:
        """Relative error of all low-rank deltas together, as one vector."""
        whole = sum(module.norm**2 for module in self.modules)
        lost = sum((module.error * module.norm) ** 2 for module in self.modules)
        return sqrt(lost / whole) if whole else 0.0


def card_of(base: str, model: str, modules: Sequence[ModuleRank], saved: Sequence[str], hub: str | None = None) -> str:
    """Write the README.md of an adapter: front matter that hubs read, what it is, the rank and error of each module."""
    lines = [
        "---", *([f"base_model: {hub}"] if hub else []), "library_name: peft", "tags:", "- lora", "---", "",
        f"The difference of {model} from {base}, as a LoRA adapter extracted by plait.", "",
        "| module | rank | relative error |", "|---|---|---|",
    ]  # fmt: skip
    lines += [f"| {module.module} | {module.rank} | {module.error:.3g} |" for module in modules]
    if saved:
        lines += ["", "Saved whole: " + ", ".join(saved) + "."]
    return "\n".join(lines) + "\n"
