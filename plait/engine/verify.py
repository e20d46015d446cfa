"""After writing: the output is opened anew and held against the plan and against its own config."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from plait.checkpoint import open_checkpoint
from plait.engine.hashes import Registry
from plait.engine.tiles import Prepared
from plait.errors import CheckpointError, MergeError
from plait.planning.types import Plan, Step

__all__ = ["check_lock", "inputs_without_effect", "model_class_faults", "verify_folder"]


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


def model_class_faults(folder: Path, plan: Plan) -> list[str]:
    """Hold names and shapes against the model class that config.json names, built without weights.

    Empty where transformers is not installed, or knows no such class.
    """
    config = plan.config or {}
    names = config.get("architectures") or []
    if not names or "model_type" not in config:
        return []
    expected = _expected_shapes(folder, str(names[0]))
    if expected is None:
        return []
    shapes, optional = expected
    written = {step.name: step.shape for step in plan.steps}
    known = _forms_of_inputs(plan)
    # What no input ever had is not lost: classes name some tensors (fused experts) otherwise than files do.
    absent = shapes.keys() - written.keys() - optional - plan.tied.keys()
    missing = sorted(name for name in absent if _form(name) in known or name.startswith("("))
    wrong = sorted(name for name in shapes.keys() & written.keys() if shapes[name] != written[name])
    texts = []
    if missing:
        texts.append(f"{names[0]} expects {len(missing)} tensors that are not there, such as {missing[0]}")
    if wrong:
        name = wrong[0]
        texts.append(f"{name} is {list(written[name])}, {names[0]} expects {list(shapes[name])}")
    return texts


def _forms_of_inputs(plan: Plan) -> set[str]:
    """The names of everything that the plan reads, writes or drops, without numbers of layers."""
    names = [source.name for step in (*plan.stage_steps, *plan.steps) for source in step.inputs]
    return {_form(name) for name in (*names, *(step.name for step in plan.steps), *(d.name for d in plan.dropped))}


def _form(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "#", name)


def _expected_shapes(folder: Path, name: str) -> tuple[dict[str, tuple[int, ...]], set[str]] | None:
    try:
        import torch  # noqa: PLC0415 - an extra
        import transformers  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    kind: Any = getattr(transformers, name, None)
    if kind is None:
        return None
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model = kind(config)
    except Exception as error:  # noqa: BLE001 - whatever the class raises, the config does not fit it
        return {f"({type(error).__name__}: {str(error).splitlines()[0]})": (0,)}, set()
    state = model.state_dict()
    tied = set(getattr(model, "all_tied_weights_keys", None) or getattr(model, "_tied_weights_keys", None) or ())
    return {key: tuple(value.shape) for key, value in state.items()}, tied


def inputs_without_effect(plan: Plan, registry: Registry, prepared: dict[Step, Prepared]) -> list[str]:
    """Name the models whose every merged tensor has the same bytes as the base's, so that they changed nothing."""
    del prepared
    moved: dict[int, bool] = {}
    for step in (*plan.stage_steps, *plan.steps):
        if step.action != "merge" or step.base is None:
            for source in step.sources:
                moved[source.model] = True
            continue
        base = registry.tensor(step.base.tensor) if step.base.tensor else None
        for source in step.sources:
            own = registry.tensor(source.tensor) if source.tensor else None
            moved[source.model] = moved.get(source.model, False) or own is None or own != base
    return [plan.models[index].reference for index, there in sorted(moved.items()) if not there]


def check_lock(plan: Plan, hashes: dict[str, str]) -> None:
    """Compare the inputs' hashes with the lock's. Raises MergeError naming the first that differ."""
    wrong = [key for key, value in plan.expected_hashes.items() if hashes.get(key) != value]
    if wrong:
        raise MergeError(
            f"{len(wrong)} input tensors are not what the lock was made from, such as {wrong[0]}: "
            f"expected {plan.expected_hashes[wrong[0]]}, found {hashes.get(wrong[0], 'none')}. "
            "Merge the recipe instead to accept the new inputs."
        )


