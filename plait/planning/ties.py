"""Which heads are the input embedding itself, over several models of which some may tie and some not."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plait.planning.types import Source
from plait.planning.views import View
from plait.structure import declared_tie, embedding_and_heads

__all__ = ["Ties", "settle_ties"]

_HEADED = re.compile(r"For[A-Z]|Head|WithLM")


@dataclass(frozen=True)
class Ties:
    """What was found out about tying."""

    names: Mapping[str, str]
    """Names that the output leaves out -> the tensor that they are tied to."""
    views: tuple[View, ...]
    """The views given, with the head of a tied model readable under its own name where the output needs one."""
    says: bool | None
    """What the output's config must say about tying; None to leave it."""
    added: tuple[str, ...]
    """Heads that the output has although the donor has none of its own."""
    twins: tuple[tuple[Source, Source], ...] = ()
    """Heads that are stored beside the embeddings that their own model's config ties them to, with these."""


def settle_ties(views: Sequence[View], donor: View, merged: Collection[View]) -> Ties:
    """Decide which names are written once for two, and which heads part from their embedding.

    A head is the embedding itself unless one of the `merged` models has a head of its own; then every tied model's
    embedding stands for its head, and the output is untied.
    """
    embedding, heads = _embedding_and_heads(views, donor)
    aliases = {name: kept for view in views for name, kept in view.aliases.items()}
    aliases |= {head: embedding for head in heads if embedding and head not in aliases}
    names: dict[str, str] = {}
    completed = list(views)
    says: bool | None = None
    for name, kept in aliases.items():
        head = name in heads
        if not any(_owns(view, name, head=head) for view in views if view in merged):
            if any(name in view.entries for view in views):
                names[name] = kept
            continue
        completed = [_with_head(view, name, kept, head=head) for view in completed]
        if head and declared_tie(donor.config) is not False:
            says = False
    at = next(index for index, view in enumerate(views) if view is donor)
    added = tuple(name for name in aliases if name in completed[at].tied and name not in donor.entries)
    twins = tuple(
        (view.entries[name], view.entries[kept])
        for view in views
        for name, kept in aliases.items()
        if name in heads and _repeats(view, name, kept)
    )
    says = says if says is None or _has_head(completed[at], heads) else None
    return Ties(names, tuple(completed), says, added, twins)


def _repeats(view: View, name: str, kept: str) -> bool:
    """Whether both are stored, and by the config one is the other: it is not read, so it must not say anything else."""
    both = name in view.entries and kept in view.entries and view.entries[name].tensor is not None
    return both and name not in view.aliases and name not in view.tied and declared_tie(view.config) is True


def _has_head(view: View, heads: Collection[str]) -> bool:
    return any(head in view.entries for head in heads)


def _with_head(view: View, name: str, kept: str, *, head: bool) -> View:
    """Let a tied model's embedding be read as its head."""
    follows = name in view.aliases or (declared_tie(view.config) is not False and not _is_headless(view.config))
    if _owns(view, name, head=head) or kept not in view.entries or not follows:
        return view
    return replace(view, entries={**view.entries, name: view.entries[kept]}, tied=view.tied | {name})


def _is_headless(config: Mapping[str, Any] | None) -> bool:
    """Whether the config names a class without a head (Qwen3Model): then there is no head to be tied.

    >>> _is_headless({"architectures": ["Qwen3Model"]}), _is_headless({"architectures": ["GPT2LMHeadModel"]})
    (True, False)
    """
    names = (config or {}).get("architectures") or []
    return bool(names) and not any(_HEADED.search(str(name)) for name in names)


def _embedding_and_heads(views: Sequence[View], donor: View) -> tuple[str | None, tuple[str, ...]]:
    embeddings, heads = embedding_and_heads(donor.shapes, donor.config)
    for view in views:
        if not heads and view is not donor:
            heads = tuple(h for h in embedding_and_heads(view.shapes, view.config)[1] if h not in donor.entries)
    return (embeddings[0] if embeddings else None), tuple(heads)


def _owns(view: View, name: str, *, head: bool) -> bool:
    """Whether the model has this tensor as one of its own, not as another name of the embedding."""
    if name not in view.entries or name in view.aliases or name in view.tied:
        return False
    return not (head and declared_tie(view.config) is True)
