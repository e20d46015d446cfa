"""After writing: the output is opened anew and held against the plan, the inputs against the lock."""

from __future__ import annotations

from pathlib import Path

from plait.checkpoint import open_checkpoint
from plait.checkpoint.io import FileReader
from plait.checkpoint.token_report import compare_tokens
from plait.checkpoint.types import Checkpoint
from plait.dtypes import DTYPES
from plait.engine.hashes import Registry
from plait.engine.threads import run_on_threads
from plait.engine.work import Work, digest_of_unit, units_of
from plait.errors import CheckpointError, MergeError
from plait.planning.types import Plan, Step

__all__ = ["check_lock", "inputs_without_effect", "verify_bytes", "verify_folder"]

_READ_AGAIN = 1 << 28
"""Bytes of the output, about, that are read again: all of a small one."""


def verify_folder(plan: Plan, folder: Path) -> None:
    """Open the written folder as any reader would, and compare names, shapes and types with the plan.

    Raises:
        MergeError: naming what differs.
    """
    try:
        written = open_checkpoint(str(folder))
    except CheckpointError as error:
        raise MergeError(f"The output cannot be opened: {error}") from error
    wanted = {step.name: (step.dtype, step.shape) for step in plan.steps}
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in written.tensors.items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        raise MergeError(f"The output differs from the plan in {len(wrong)} tensors, such as {wrong[0]}.")
    if plan.recipe.tokenizer is not None:
        _check_vocabulary(written)


def _check_vocabulary(written: Checkpoint) -> None:
    """Hold one number against the others: the config's vocabulary, rows of embeddings and heads, tokenizer's length."""
    model = compare_tokens([written]).models[0]
    said = {} if model.vocab_size is None else {"config.json": model.vocab_size}
    sizes = {**said, **model.rows}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise MergeError(f"The output's vocabulary has several sizes: {told}.")
    if model.rows and model.length > min(sizes.values()):
        raise MergeError(
            f"The output's tokenizer has numbers up to {model.length - 1}, and {min(sizes.values())} rows."
        )


def verify_bytes(work: Work) -> None:
    """Read units of the output again, evenly spread, and compare them with what was computed.

    That finds what writes to the wrong place, here or in another process. What a disk does later it does not find, in
    as much as the system still has the bytes in memory.

    Raises:
        MergeError: naming the tensor that is not as it was written.
    """
    placed = work.plan.placed
    written = sum(place.step.size * DTYPES[place.step.dtype].size for place in placed)
    units = [(index, unit) for index, place in enumerate(placed) for unit in range(units_of(place.step))]
    units = units[:: max(1, written // _READ_AGAIN)]

    def check(item: tuple[int, int]) -> None:
        place = placed[item[0]]
        if digest_of_unit(work, reader, place, item[1]) != work.digests.get(item):
            raise MergeError(f"{place.step.name} is not on the disk as it was written.")

    with FileReader() as reader:
        run_on_threads(units, lambda: check, work.threads, work.stop)


def inputs_without_effect(plan: Plan, registry: Registry) -> list[str]:
    """Name the models whose every merged tensor has the same bytes as the base's, so that they changed nothing."""
    moved: dict[int, bool] = {}
    for step in (*plan.stage_steps, *plan.steps):
        for model, moves in _moves(step, registry):
            moved[model] = moved.get(model, False) or moves
    return [plan.models[index].reference for index, there in sorted(moved.items()) if not there]


def _moves(step: Step, registry: Registry) -> list[tuple[int, bool]]:
    """Which models have a part in the step, and whether they can make the result another than the base."""
    if step.action == "copy" and len(step.sources) > 1:
        return []  # what is only compared tells nothing
    if step.action != "merge" or step.base is None:
        return [(source.model, True) for source in step.sources]
    base = registry.tensor(step.base.tensor) if step.base.tensor else None
    found = []
    for source in step.sources:
        own = registry.tensor(source.tensor) if source.tensor else None
        found.append((source.model, own is None or own != base))
    return found


def check_lock(plan: Plan, hashes: dict[str, str]) -> None:
    """Compare the inputs' hashes with the lock's. Raises MergeError naming the first that differ."""
    wrong = [key for key, value in plan.expected_hashes.items() if hashes.get(key) != value]
    if wrong:
        raise MergeError(
            f"{len(wrong)} input tensors are not what the lock was made from, such as {wrong[0]}: "
            f"expected {plan.expected_hashes[wrong[0]]}, found {hashes.get(wrong[0], 'none')}. "
            "Merge the recipe instead to accept the new inputs."
        )
