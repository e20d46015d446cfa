"""What tells tokenizers apart: tokens, numbers, kinds, and the rows that there are for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from plait.checkpoint.side_files import side_files
from plait.checkpoint.types import Checkpoint
from plait.checkpoint.vocabulary import Vocabulary, read_vocabulary, unreadable
from plait.structure import embedding_and_heads
from plait.structure.configs import stated

__all__ = ["TokenDifferences", "TokenReport", "TokensOfModel", "compare_tokens", "tokens_text"]

_SHOWN = 8


@dataclass(frozen=True)
class TokensOfModel:
    """One model: its tokenizer, and the rows of its token tables."""

    reference: str
    file: str | None
    """The file that the vocabulary was read from; None where there is none that can be read."""
    type: str
    """BPE, Unigram, WordPiece, WordLevel, or ""."""
    tokens: int
    length: int
    """The greatest token's number and one more: the least number of rows."""
    vocab_size: int | None
    """What config.json says."""
    rows: Mapping[str, int]
    """Embeddings and heads -> their rows."""
    special: Mapping[str, int]
    roles: Mapping[str, str]
    """bos_token and the like -> token."""
    ghosts: tuple[str, ...]
    """Tokens whose number is beyond the rows."""
    holes: int
    """Numbers below `length` that are no token's."""
    not_read: tuple[str, ...]
    """Tokenizer files that plait has no reader for."""


@dataclass(frozen=True)
class TokenDifferences:
    """How a model's vocabulary differs from the first model's."""

    reference: str
    first: str
    only_first: tuple[str, ...]
    only_here: tuple[str, ...]
    other_number: Mapping[str, tuple[int, int]]
    """Token -> its number in the first model, and here."""
    other_kind: Mapping[str, tuple[str, str]]
    """Token -> special, added or piece in the first model, and here."""
    other_role: Mapping[str, tuple[str | None, str | None]]

    @property
    def none(self) -> bool:
        """Whether the two are the same in all that is compared."""
        return not (self.only_first or self.only_here or self.other_number or self.other_kind or self.other_role)


@dataclass(frozen=True)
class TokenReport:
    """What `plait tokens` prints."""

    models: tuple[TokensOfModel, ...]
    differences: tuple[TokenDifferences, ...]
    """One for each model after the first that has a vocabulary, if the first has one."""

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def compare_tokens(checkpoints: Sequence[Checkpoint]) -> TokenReport:
    """Describe every model's tokens, and compare each model with the first."""
    found = [(one, read_vocabulary(side_files(one), one.texts)) for one in checkpoints]
    models = tuple(_described(one, vocabulary) for one, vocabulary in found)
    if not found or found[0][1] is None:
        return TokenReport(models, ())
    first = (found[0][0].reference, found[0][1])
    others = [(one.reference, vocabulary) for one, vocabulary in found[1:] if vocabulary is not None]
    return TokenReport(models, tuple(_compared(first, other) for other in others))


def _described(checkpoint: Checkpoint, vocabulary: Vocabulary | None) -> TokensOfModel:
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    embeddings, heads = embedding_and_heads(shapes, checkpoint.config)
    rows = {name: shapes[name][0] for name in (*embeddings, *heads)}
    sizes = stated(checkpoint.config, "vocab_size")
    own = vocabulary or Vocabulary("", {})
    least = min(rows.values(), default=own.length)
    return TokensOfModel(
        checkpoint.reference,
        own.file or None,
        own.type,
        len(own.ids),
        own.length,
        int(sizes[-1]) if sizes else None,
        rows,
        {token: own.ids[token] for token, kind in own.kinds.items() if kind == "special"},
        own.roles,
        tuple(token for token, number in own.ids.items() if number >= least),
        own.length - len(set(own.ids.values())),
        unreadable(side_files(checkpoint)),
    )


def _compared(first: tuple[str, Vocabulary], other: tuple[str, Vocabulary]) -> TokenDifferences:
    (name, one), (here, two) = first, other
    both = [token for token in one.ids if token in two.ids]
    roles = sorted(one.roles.keys() | two.roles.keys())
    return TokenDifferences(
        here,
        name,
        _alone(one, two),
        _alone(two, one),
        {token: (one.ids[token], two.ids[token]) for token in both if one.ids[token] != two.ids[token]},
        {token: (one.kind(token), two.kind(token)) for token in both if one.kind(token) != two.kind(token)},
        {
            role: (one.roles.get(role), two.roles.get(role))
            for role in roles
            if one.roles.get(role) != two.roles.get(role)
        },
    )


def _alone(one: Vocabulary, two: Vocabulary) -> tuple[str, ...]:
    """Return the tokens of one alone: special ones first, which matter most where the list is cut."""
    found = [token for token in one.ids if token not in two.ids]
    return tuple(sorted(found, key=lambda token: one.kind(token) != "special"))


def tokens_text(report: TokenReport) -> str:
    """Return the report in words."""
    lines: list[str] = []
    for model in report.models:
        lines += _model_lines(model)
    for found in report.differences:
        lines += ["", f"{found.reference} against {found.first}:"]
        lines += [f"  {line}" for line in _difference_lines(found)]
    return "\n".join(lines)


def _model_lines(model: TokensOfModel) -> list[str]:
    kind = f"{model.file}{f' ({model.type})' if model.type else ''}" if model.file else "no tokenizer that can be read"
    rows = ", ".join(f"{name} {count}" for name, count in model.rows.items()) or "none"
    said = "not stated" if model.vocab_size is None else model.vocab_size
    lines = [
        model.reference,
        f"  tokenizer   {kind}: {model.tokens} tokens, length {model.length}, {len(model.special)} special",
        f"  vocab_size  {said}",
        f"  rows        {rows}",
    ]
    if model.roles:
        lines.append("  roles       " + ", ".join(f"{role} {token!r}" for role, token in model.roles.items()))
    if model.ghosts:
        lines.append(f"  no row for  {_some(model.ghosts)}")
    if model.holes:
        lines.append(f"  holes       {model.holes} numbers are no token's")
    padding = min(model.rows.values(), default=0) - model.length
    if model.file and padding > 0:
        lines.append(f"  padding     {padding} rows beyond the tokenizer")
    lines += [f"  not read    {name}" for name in model.not_read]
    return lines


def _difference_lines(found: TokenDifferences) -> list[str]:
    if found.none:
        return ["the same tokens, numbers and kinds"]
    lines = []
    if found.only_first:
        lines.append(f"only in {found.first}: {_some(found.only_first)}")
    if found.only_here:
        lines.append(f"only in {found.reference}: {_some(found.only_here)}")
    changes = {
        "other number": {token: f"{one} -> {two}" for token, (one, two) in found.other_number.items()},
        "other kind": {token: f"{one} -> {two}" for token, (one, two) in found.other_kind.items()},
        "other role": {role: f"{one!r} -> {two!r}" for role, (one, two) in found.other_role.items()},
    }
    for title, entries in changes.items():
        if entries:
            texts = [f"{token!r} {change}" for token, change in list(entries.items())[:_SHOWN]]
            more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
            lines.append(f"{title} ({len(entries)}): {', '.join(texts)}{more}")
    return lines


def _some(tokens: Sequence[str]) -> str:
    more = f" and {len(tokens) - _SHOWN} more" if len(tokens) > _SHOWN else ""
    return f"{len(tokens)}: {', '.join(repr(token) for token in tokens[:_SHOWN])}{more}"
