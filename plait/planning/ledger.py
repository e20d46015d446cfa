"""The ledger of a plan: what became of every tensor of the inputs, and where every tensor of the output comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from plait.checkpoint.names import list_some
from plait.planning.types import Dropped, Plan, Source, Step

__all__ = ["Copied", "Generated", "Ledger", "ledger_as_data", "ledger_as_lines", "ledger_of"]

_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Copied:
    """An output tensor with the bytes of one input's, save for its element type."""

    name: str
    model: str
    source: str
    """The tensor's name where it is stored."""
    reason: str


@dataclass(frozen=True, slots=True)
class Generated:
    """What no input has: a tensor, or some rows of one."""

    name: str
    what: str


@dataclass(frozen=True)
class Ledger:
    """Every output tensor is `merged` or `copied`; every input tensor is read for one, tied, or `dropped`."""

    merged: tuple[str, ...]
    copied: tuple[Copied, ...]
    generated: tuple[Generated, ...]
    """Parts of those above that no input has."""
    tied: Mapping[str, str]
    """Names that are not written -> the tensor that stands for them."""
    dropped: tuple[Dropped, ...]


def ledger_of(plan: Plan) -> Ledger:
    """Enter every tensor of a plan."""
    references = [model.reference for model in plan.models]
    merged, copied, generated = [], [], []
    for step in plan.steps:
        if _is_copied(step):
            source = step.sources[0]
            copied.append(Copied(step.name, references[source.model], source.name, step.reason))
        else:
            merged.append(step.name)
        generated += _generated(step)
    return Ledger(tuple(merged), tuple(copied), tuple(generated), plan.tied, plan.dropped)


def _is_copied(step: Step) -> bool:
    """Whether nothing but the element type differs from one input's tensor."""
    return step.action == "copy" or (step.method == "passthrough" and bool(step.reason))


def _generated(step: Step) -> list[Generated]:
    rows = max((_new_rows(source) for source in step.inputs), default=0)
    if not rows:
        return []
    return [Generated(step.name, f"{rows} row{'s' if rows > 1 else ''} that no input has")]


def _new_rows(source: Source) -> int:
    return int(getattr(source.tensor.derived, "generated", 0)) if source.tensor else 0


def ledger_as_lines(ledger: Ledger, *, every: bool = False) -> list[str]:
    """Write the ledger, each entry with its names: all of them, or the first few unless `every`."""
    shown = len(ledger.merged) + len(ledger.copied) + len(ledger.dropped) + len(ledger.tied) if every else _SHOWN
    lines = [f"merged     {_count(len(ledger.merged))}"]
    for (model, reason), names in _grouped(((one.model, one.reason), one.name) for one in ledger.copied).items():
        lines.append(f"copied     {_count(len(names))} from {model} ({reason}): {list_some(names, shown)}")
    for (what,), names in _grouped(((one.what,), one.name) for one in ledger.generated).items():
        lines.append(f"generated  {what}: {list_some(names, shown)}")
    pairs = [f"{name} = {kept}" for name, kept in ledger.tied.items()]
    lines += [f"tied       {_count(len(pairs))}, not written: {list_some(pairs, shown)}"] if pairs else []
    for (model, reason), names in _grouped(((one.model, one.reason), one.name) for one in ledger.dropped).items():
        lines.append(f"dropped    {_count(len(names))} of {model} ({reason}): {list_some(names, shown)}")
    return lines


def _grouped(entries: Iterable[tuple[tuple[str, ...], str]]) -> dict[tuple[str, ...], list[str]]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for key, name in entries:
        groups.setdefault(key, []).append(name)
    return groups


def _count(number: int) -> str:
    return f"{number} tensor{'s' if number != 1 else ''}"


def ledger_as_data(ledger: Ledger) -> dict[str, Any]:
    """Return the whole ledger as plain data."""
    return {
        "merged": list(ledger.merged),
        "copied": [
            {"name": one.name, "model": one.model, "source": one.source, "reason": one.reason} for one in ledger.copied
        ],
        "generated": [{"name": one.name, "what": one.what} for one in ledger.generated],
        "tied": dict(ledger.tied),
        "dropped": [{"model": one.model, "name": one.name, "reason": one.reason} for one in ledger.dropped],
    }
