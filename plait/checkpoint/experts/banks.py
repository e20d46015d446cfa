"""The experts of a checkpoint, read off names and shapes: one tensor an expert, or one for all of a layer's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from plait.structure import language_configs, locate

__all__ = ["Bank", "Joined", "Key", "Kind", "Role", "Shapes", "find_banks"]

Shapes = Mapping[str, tuple[int, ...]]
Role = Literal["gate", "up", "gate_up", "down"]
Kind = Literal["weight", "bias"]
Key = tuple[Role, Kind]
Joined = Literal["halves", "woven"]

# What projections are called; `w1`, `w3`, `w2` are Mixtral's, the last two Granite's. "gate" without "up" is plain "up".
_ROLES: dict[str, Role] = {
    "gate_proj": "gate", "up_proj": "up", "down_proj": "down", "gate_up_proj": "gate_up",
    "w1": "gate", "w3": "up", "w2": "down",
    "input_linear": "gate_up", "output_linear": "down",
}  # fmt: skip
_PROJECTION = "|".join(sorted(_ROLES, key=len, reverse=True))
_FORMS = (
    re.compile(rf"(?P<at>experts\.)(?P<number>\d+)\.(?P<role>{_PROJECTION})\.(?P<kind>weight|bias)$"),
    # As unsloth splits experts that are stored as one: a list of modules for each projection.
    re.compile(rf"(?P<at>experts\.)(?P<role>{_PROJECTION})s\.(?P<number>\d+)\.(?P<kind>weight|bias)$"),
    re.compile(rf"(?P<at>experts\.)(?P<role>{_PROJECTION})(?P<kind>|\.weight|\.bias|_bias)$"),
    re.compile(r"(?P<at>)(?P<role>input_linear|output_linear)(?P<kind>\.weight|\.bias)$"),
)
# Which way gate and up are joined in one tensor cannot be told from shapes. Families where the rows take turns, gate first;
# all other families that transformers knows by these names have the rows of gate above those of up.
_WOVEN = frozenset({"gpt_oss"})
_HALVES_WITH_BIAS = frozenset({"openai_privacy_filter"})


@dataclass(frozen=True)
class Bank:
    """The experts of one layer. `[I, H]` is the shape of an expert's gate and up, `[H, I]` that of its down."""

    block: str
    """The module that has them, and their router: `model.layers.0.mlp`."""
    count: int
    """How many experts."""
    names: Mapping[Key, str]
    """By what they are, with `{}` for the expert's number, if each has its own tensor: `experts.{}.w1.weight`."""
    shapes: Mapping[Key, tuple[int, ...]]
    """As one tensor has it: of one expert, or of all."""
    turned: bool | None = False
    """Whether stacked matrices are stored transposed, `[in, out]`; None where shapes do not tell."""
    joined: Joined | None = None
    """How gate and up lie in one tensor: the rows of gate above those of up, or in turns; None where that is not known."""
    problem: str = ""
    """Why the experts cannot be laid out anew."""
    others: tuple[str, ...] = field(default=(), compare=False)
    """What else is in the block, and no expert's: the router, shared experts."""

    @property
    def place(self) -> tuple[str, int, str]:
        """The stack of layers, the layer's number, and the block's name within the layer."""
        at = locate(f"{self.block}.")
        return (self.block, 0, "") if at is None else (at.prefix, at.index, at.suffix.rstrip("."))

    @property
    def layout(self) -> tuple[object, ...]:
        """What is the same for banks that need nothing done to be merged with each other."""
        order = tuple(sorted((key, name) for key, name in self.names.items()))
        return self.place[2], order, self.turned, self.joined

    def is_stacked(self, key: Key) -> bool:
        """Whether all experts are in one tensor."""
        return "{}" not in self.names[key]

    def name(self, key: Key, expert: int) -> str:
        """Name the tensor that has this of an expert."""
        relative = self.names[key].format(expert)
        return f"{self.block}.{relative}" if self.block else relative

    def tensors(self) -> tuple[str, ...]:
        """Name all tensors of the experts."""
        found = ([self.name(key, e) for e in range(1 if self.is_stacked(key) else self.count)] for key in self.names)
        return tuple(chain.from_iterable(found))

    def matrix(self, key: Key) -> tuple[int, int]:
        """Return rows and columns of one expert's part as stored; a bias is a single column."""
        own = self.shapes[key][1:] if self.is_stacked(key) else self.shapes[key]
        return (own[0], own[1]) if len(own) == 2 else (own[0], 1)

    def is_turned(self, key: Key) -> bool:
        """Whether this is stored transposed."""
        return bool(self.turned) and key[1] == "weight" and self.is_stacked(key)

    def told(self) -> str:
        """Say in words how the experts are stored."""
        names = [self.names[key] for key in self.names if key[1] == "weight"]
        text = ", ".join(name.replace("{}", "*").removesuffix(".weight") for name in names)
        details = ["transposed"] if self.turned else []
        if any(role == "gate_up" for role, _ in self.names):
            details += {"halves": ["gate above up"], "woven": ["gate and up in turns"]}.get(str(self.joined), [])
        return f"{text} ({', '.join(details)})" if details else text


def find_banks(shapes: Shapes, config: Mapping[str, Any] | None) -> dict[str, Bank]:
    """Find all experts, by the block that has them.

    >>> shapes = {f"h.0.mlp.experts.{e}.{p}_proj.weight": (8, 8) for e in (0, 1) for p in ("gate", "up", "down")}
    >>> bank = find_banks(shapes, None)["h.0.mlp"]
    >>> bank.count, bank.told()
    (2, 'experts.*.gate_proj, experts.*.up_proj, experts.*.down_proj')
    """
    found: dict[str, _Found] = {}
    for name, shape in shapes.items():
        parsed = _parse(name, shape)
        if parsed is not None:
            block, key, relative, number = parsed
            found.setdefault(block, _Found()).enter(key, relative, number, shape)
    others: dict[str, list[str]] = {block: [] for block in found}
    for name in shapes:
        for block in _blocks_above(name):
            if block in others:
                others[block].append(name)
                break
    return {block: _bank(block, one, others[block], _model_types(config)) for block, one in found.items()}


@dataclass
class _Found:
    parts: dict[Key, dict[str, dict[int, tuple[int, ...]]]] = field(default_factory=dict)
    """By what it is, by name: the shapes by expert; -1 for all experts in one tensor."""

    def enter(self, key: Key, relative: str, number: int, shape: tuple[int, ...]) -> None:
        """Take in one tensor."""
        self.parts.setdefault(key, {}).setdefault(relative, {})[number] = shape


def _parse(name: str, shape: tuple[int, ...]) -> tuple[str, Key, str, int] | None:
    """Return block, what it is, name within the block, and the expert's number."""
    for form in _FORMS:
        match = form.search(name)
        if match is None or (match.start() and name[match.start() - 1] != "."):
            continue
        groups = match.groupdict()
        stacked = groups.get("number") is None
        kind: Kind = "bias" if groups["kind"].endswith("bias") else "weight"
        if len(shape) != 1 + stacked + (kind == "weight"):
            continue
        relative = name[match.start() :]
        if not stacked:
            begin, end = (at - match.start() for at in match.span("number"))
            relative = f"{relative[:begin]}{{}}{relative[end:]}"
        return (
            name[: max(0, match.start() - 1)],
            (_ROLES[groups["role"]], kind),
            relative,
            int(groups.get("number") or -1),
        )
    return None


def _blocks_above(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _model_types(config: Mapping[str, Any] | None) -> frozenset[str]:
    return frozenset(str(part["model_type"]) for _, part in language_configs(config) if part.get("model_type"))


def _bank(block: str, found: _Found, inside: Sequence[str], types: frozenset[str]) -> Bank:
    names: dict[Key, str] = {}
    shapes: dict[Key, tuple[int, ...]] = {}
    counts: dict[str, int] = {}
    problem = ""
    for key, by_name in found.parts.items():
        (relative, members), *more = by_name.items()
        kinds = set(members.values())
        if more or len(kinds) > 1:
            problem = problem or f"its {key[0]} projections are stored in several ways"
        names[key], shapes[key] = relative, next(iter(members.values()))
        counts[relative] = shapes[key][0] if -1 in members else max(members) + 1
        if -1 not in members and len(members) < counts[relative]:
            lost = [str(e) for e in range(counts[relative]) if e not in members]
            problem = problem or f"{relative.format(' or '.join(lost[:4]))} is missing"
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} in {name.replace('{}', '*')}" for name, count in counts.items())
        problem = problem or f"its number of experts is not clear ({told})"
    names = {_ungated(key, found.parts): name for key, name in names.items()}
    shapes = {_ungated(key, found.parts): shape for key, shape in shapes.items()}
    count = max(counts.values())
    own = {f"{block}.{r.format(e)}".lstrip(".") for r in counts for e in range(count if "{}" in r else 1)}
    others = tuple(name for name in inside if name not in own)
    stray = [name for name in others if name.startswith(f"{block}.experts.".lstrip("."))]
    if stray:
        problem = problem or f"it is not known what {stray[0]} is"
    bank = Bank(block, count, names, shapes, others=others)
    turned, wrong = _orientation(bank)
    return Bank(block, count, names, shapes, turned, _joined(bank, types), problem or wrong, others)


def _ungated(key: Key, parts: Mapping[Key, Any]) -> Key:
    gated = key[0] != "gate" or any(role in {"up", "gate_up"} for role, _ in parts)
    return key if gated else ("up", key[1])


def _orientation(bank: Bank) -> tuple[bool | None, str]:
    """Whether stacked matrices are transposed, by the sizes of one and the other projection."""
    down: Key = ("down", "weight")
    into = next((key for key in bank.names if key[0] != "down" and key[1] == "weight"), None)
    if into is None or down not in bank.names:
        return False, "it has not both projections"
    joined = 2 if into[0] == "gate_up" else 1
    (a, b), (c, d) = bank.matrix(into), bank.matrix(down)
    straight, turned = (b == c and a == joined * d), (a == d and b == joined * c)
    stacked = bank.is_stacked(into), bank.is_stacked(down)
    if not any(stacked):
        return False, "" if straight else f"sizes do not fit each other: {[a, b]} and {[c, d]}"
    if not all(stacked):
        return False, "one projection is stored by expert, the other for all"
    if straight and turned:
        return None, ""
    if straight or turned:
        return turned, ""
    return False, f"sizes do not fit each other: {list(bank.shapes[into])} and {list(bank.shapes[down])}"


def _joined(bank: Bank, types: frozenset[str]) -> Joined | None:
    if not any(role == "gate_up" for role, _ in bank.names):
        return None
    if types & _WOVEN:
        return "woven"
    biased = ("gate_up", "bias") in bank.names
    return None if biased and not types & _HALVES_WITH_BIAS else "halves"
