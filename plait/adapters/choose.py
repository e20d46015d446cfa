"""What becomes of each tensor of a model in an adapter: factors of low rank, saved whole, or left out and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plait.checkpoint import Checkpoint, StoredTensor, quantisation, with_names
from plait.dtypes import DTYPES
from plait.errors import ArgumentError, CheckpointError
from plait.structure import align, declared_tie, embedding_and_heads
from plait.structure.parts import is_embedding_name

__all__ = ["Choice", "Pair", "choose", "module_of", "pairs_of"]

_HEAD = "lm_head.weight"  # what transformers calls a head that no file names
# Matrices that are looked up or that route: in peft they are no linear layers, or must stay exact to route the same.
_NOT_LINEAR = re.compile(r"(^|\.)(gate|router|wpe|[a-z_]*position[a-z_]*)\.weight$")


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of the base and what the model has in its place."""

    name: str
    """In the base's manner."""
    base: StoredTensor
    model: StoredTensor


@dataclass(frozen=True)
class Choice:
    """Every pair, by what may become of it; what does not differ is found out when it is read."""

    linear: tuple[Pair, ...]
    """Matrices of linear layers: factors."""
    whole: tuple[Pair, ...]
    """Everything else that is kept: saved as it is in the model."""
    left_out: Mapping[str, str]
    """Name -> reason."""
    tied: str | None
    """The head that has no tensor of its own, so that a change of the embeddings is one of it; None where it has."""


def module_of(name: str) -> str:
    """Return the module that a tensor belongs to, "" for one that lies at the top.

    >>> module_of("model.norm.weight"), module_of("A_log")
    ('model.norm', '')
    """
    return name.rpartition(".")[0]


def choose(
    base: Checkpoint, model: Checkpoint, *, include: str | None, exclude: str | None, save_embeddings: bool
) -> Choice:
    """Decide for every tensor, from headers alone. See `plait.extract` for the arguments.

    Raises:
        CheckpointError: a checkpoint is quantised, or names or shapes differ; all of them are told.
        ArgumentError: a regular expression is none, or matches nothing.
    """
    pairs, ties = pairs_of(base, model, _Filter(include, exclude))
    left_out: dict[str, str] = {}
    linear: list[Pair] = []
    whole: list[Pair] = []
    embeddings = set(embedding_and_heads({pair.name: pair.base.shape for pair in pairs}, base.config)[0])
    wanted = _Filter(include, exclude)
    for pair in pairs:
        embeds = pair.name in embeddings or (len(pair.base.shape) == 2 and is_embedding_name(pair.name))
        reason = wanted.reason(pair.name)
        if reason is None and embeds and not save_embeddings:
            reason = "embeddings are left out, as asked"
        if reason is not None:
            left_out[pair.name] = reason
        elif not embeds and _is_linear(pair):
            linear.append(pair)
        else:
            whole.append(pair)
    wanted.check(list(base.tensors))
    return Choice(tuple(linear), tuple(whole), left_out, ties)


def _is_linear(pair: Pair) -> bool:
    floats = DTYPES[pair.base.dtype].is_float and DTYPES[pair.model.dtype].is_float
    shaped = len(pair.base.shape) == 2 and pair.base.size > 0
    return floats and shaped and pair.name.endswith(".weight") and not _NOT_LINEAR.search(pair.name)


class _Filter:
    """Which names the user wants."""

    def __init__(self, include: str | None, exclude: str | None) -> None:
        self._include, self._exclude = _compiled("include", include), _compiled("exclude", exclude)

    def reason(self, name: str) -> str | None:
        """Say why a tensor is not wanted; None when it is."""
        if self._include and not self._include.search(name):
            return f"not in include ({self._include.pattern})"
        if self._exclude and self._exclude.search(name):
            return f"in exclude ({self._exclude.pattern})"
        return None

    def check(self, names: Sequence[str]) -> None:
        """Raise ArgumentError where an expression matches nothing."""
        for key, pattern in (("include", self._include), ("exclude", self._exclude)):
            if pattern and not any(pattern.search(name) for name in names):
                raise ArgumentError(f"{key}: no tensor matches {pattern.pattern!r}; there is {names[0]}, for example.")


def _compiled(key: str, pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ArgumentError(f"{key}: {pattern!r} is not a regular expression: {error}.") from error


def pairs_of(base: Checkpoint, model: Checkpoint, wanted: _Filter) -> tuple[tuple[Pair, ...], str | None]:
    """Match the tensors by name, a change of prefix allowed; and name the head that has none of its own.

    Raises:
        CheckpointError: as `choose`.
    """
    for one in (base, model):
        scheme = quantisation(one)
        if scheme:
            raise CheckpointError(f"{one.reference}: quantised ({scheme}); a difference needs the weights themselves.")
    shapes = {name: tensor.shape for name, tensor in base.tensors.items()}
    found = align(shapes, {name: tensor.shape for name, tensor in model.tensors.items()})
    theirs = dict((with_names(model, found.renames) if found.renames else model).tensors)
    ours = dict(base.tensors)
    ties = _settle_ties(base, model, ours, theirs)
    faults = [f"{name} is in {base.reference} alone" for name in ours.keys() - theirs.keys()]
    faults += [f"{name} is in {model.reference} alone" for name in theirs.keys() - ours.keys()]
    faults += [
        f"{name} has shape {list(ours[name].shape)} in {base.reference}, {list(theirs[name].shape)} in {model.reference}"
        for name in ours.keys() & theirs.keys()
        if ours[name].shape != theirs[name].shape
    ]
    faults = sorted(fault for fault in faults if wanted.reason(fault.split(" ", 1)[0]) is None)
    if faults:
        more = "" if len(faults) == 1 else f"{len(faults)} tensors do not match:\n  "
        raise CheckpointError(
            more + "\n  ".join(faults) + "\nAn adapter changes values, not names or shapes. "
            "Leave them out (exclude), or give the base that the model was made from."
        )
    names = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
    return tuple(Pair(name, ours[name], theirs[name]) for name in names), ties


def _settle_ties(
    base: Checkpoint, model: Checkpoint, ours: dict[str, StoredTensor], theirs: dict[str, StoredTensor]
) -> str | None:
    """Take away heads that only repeat the embeddings; returns the module of the head that follows the embeddings."""
    embeddings, heads = embedding_and_heads({name: one.shape for name, one in ours.items()}, base.config)
    embeddings_, heads_ = embedding_and_heads({name: one.shape for name, one in theirs.items()}, model.config)
    tied, tied_ = declared_tie(base.config), declared_tie(model.config)
    if tied and tied_:
        for name in {*heads, *heads_}:
            ours.pop(name, None)
            theirs.pop(name, None)
        return module_of((heads or heads_ or (_HEAD,))[0])
    if heads and not heads_ and tied_ and len(embeddings_) == 1:
        theirs[heads[0]] = theirs[embeddings_[0]]  # the model's head is its embeddings; the base's is its own
        return None
    return module_of(_HEAD) if embeddings and not heads and not heads_ and tied is not False else None
