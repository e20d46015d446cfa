"""What peft can hold where: factors for linear layers, modules saved whole, biases by themselves.

peft finds a module to save by the end of its name (`str.endswith`), wants every tensor of it, and has no module both
with factors and saved whole.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from plait.adapters.choose import Choice, Pair, module_of
from plait.errors import PlaitError

__all__ = ["Arrangement", "arrange", "short_targets", "transposed"]


@dataclass(frozen=True)
class Arrangement:
    """The tensors of the adapter by the way in which they are held."""

    linear: tuple[Pair, ...]
    """To be factored."""
    modules: tuple[str, ...]
    """Saved whole, with every tensor in them."""
    whole: tuple[Pair, ...]
    """Those tensors."""
    biases: tuple[Pair, ...]
    """Biases of linear layers, saved beside the factors."""


def arrange(choice: Choice, changed: Collection[str]) -> Arrangement:
    """Say how each changed tensor is held.

    Args:
        choice: what may become of which tensor.
        changed: the names of those of `choice.whole` that differ.

    Raises:
        PlaitError: a tensor that changed lies in no module, or in one of which a part was left out.
    """
    linear = {module_of(pair.name): pair for pair in choice.linear}
    biases = [pair for pair in choice.whole if pair.name in changed and _is_bias_of(pair.name, linear)]
    modules = {module_of(pair.name): pair.name for pair in choice.whole if pair.name in changed}
    for pair in biases:
        modules.pop(module_of(pair.name), None)
    if "" in modules:
        raise PlaitError(
            f"{modules['']} differs and lies in no module, which peft cannot hold. Leave it out (exclude)."
        )
    pairs = {pair.name: pair for pair in (*choice.linear, *choice.whole)}
    saved = _closed(modules, {*pairs, *choice.left_out})
    for name, reason in choice.left_out.items():
        holder = next((module for module in saved if name.startswith(f"{module}.")), None)
        if holder:
            raise PlaitError(
                f"{holder} has to be saved whole, but its {name} is left out: {reason}. Leave out all of it, or nothing."
            )
    within = {name for name in pairs if any(name.startswith(f"{module}.") for module in saved)}
    return Arrangement(
        tuple(pair for pair in choice.linear if pair.name not in within),
        tuple(sorted(saved)),
        tuple(pair for pair in pairs.values() if pair.name in within),
        tuple(pair for pair in biases if pair.name not in within),
    )


def _is_bias_of(name: str, linear: Mapping[str, Pair]) -> bool:
    return name.endswith(".bias") and module_of(name) in linear


def _closed(modules: Iterable[str], names: Iterable[str]) -> set[str]:
    """Add what peft would take for one of these modules, too; then leave only the outermost."""
    known = {module for name in names for module in _ancestors(name)}
    saved = {module for module in known if any(module.endswith(chosen) for chosen in modules)}
    return {one for one in saved if not any(one.startswith(f"{other}.") for other in saved)}


def _ancestors(name: str) -> list[str]:
    segments = name.split(".")
    return [".".join(segments[:count]) for count in range(1, len(segments))]


def short_targets(targets: Sequence[str], modules: Collection[str]) -> list[str]:
    """Name the target modules by their last segments where those name no other module, else in full.

    >>> short_targets(["a.0.q", "a.1.q", "a.0.v"], ["a.0.q", "a.1.q", "a.0.v", "a.1.v", "norm"])
    ['a.0.v', 'q']
    """
    chosen = set(targets)
    others = {module.rpartition(".")[2] for module in modules if module not in chosen}
    found = {last if (last := target.rpartition(".")[2]) not in others else target for target in targets}
    return sorted(found)


def transposed(linear: Sequence[Pair], shapes: Mapping[str, tuple[int, ...]]) -> frozenset[str]:
    """Find the weights that are stored [in, out] (GPT-2's Conv1D), told by the lengths of the biases beside them.

    A square weight goes by those of its own last name, then by all others of the checkpoint.
    """
    told: dict[str, bool] = {}
    square: list[str] = []
    for pair in linear:
        bias = shapes.get(f"{module_of(pair.name)}.bias")
        rows, columns = pair.base.shape
        if bias is None or len(bias) != 1:
            continue
        if rows == columns:
            square.append(pair.name)
        else:
            told[pair.name] = bias[0] == columns
    by_kind: dict[str, set[bool]] = {}
    for name, turned in told.items():
        by_kind.setdefault(_kind(name), set()).add(turned)
    everywhere = set(told.values())
    for name in square:
        told[name] = by_kind.get(_kind(name), everywhere) == {True}
    return frozenset(name for name, turned in told.items() if turned)


def _kind(name: str) -> str:
    return re.sub(r"\d+", "#", module_of(name)).rpartition(".")[2]
