"""Checkpoints seen under other names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from plait.checkpoint.names import in_natural_order, list_some
from plait.checkpoint.types import Checkpoint
from plait.errors import CheckpointError, did_you_mean

__all__ = ["with_names"]


def with_names(checkpoint: Checkpoint, renames: Mapping[str, str]) -> Checkpoint:
    """Show `checkpoint` with some tensors under other names: name in `checkpoint` -> name in the view.

    Which name of an alias is kept does not change. Names may be swapped. A view of a view has `renames` down to the
    files' own names.

    Raises:
        CheckpointError: `renames` has a name that `checkpoint` lacks, or two tensors would have one name.
    """
    for name in renames:
        if name not in checkpoint.tensors:
            hint = did_you_mean(name, list(checkpoint.tensors))
            raise CheckpointError(f"{checkpoint.reference}: no tensor {name!a} to rename. {hint}".rstrip())
    here = {name: renames.get(name, name) for name in checkpoint.tensors}
    owners: dict[str, list[str]] = {}
    for old, new in here.items():
        owners.setdefault(new, []).append(old)
    clashes = [f"{' and '.join(old)} -> {new}" for new, old in owners.items() if len(old) > 1]
    if clashes:
        raise CheckpointError(f"{checkpoint.reference}: two tensors would have one name: {list_some(clashes)}.")
    stored = {new: checkpoint.renames.get(old, old) for old, new in here.items()}
    return replace(
        checkpoint,
        tensors=in_natural_order(replace(tensor, name=here[name]) for name, tensor in checkpoint.tensors.items()),
        aliases={here[name]: here[kept] for name, kept in checkpoint.aliases.items()},
        renames={new: old for new, old in stored.items() if new != old},
    )
