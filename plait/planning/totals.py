"""Sums over a plan: bytes read, peak memory, counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from plait.checkpoint.types import StoredTensor
from plait.dtypes import DTYPES
from plait.hub.pieces import partial_file
from plait.methods import find_method
from plait.methods.measures import Quantiles
from plait.methods.method import Method
from plait.methods.vocabulary import Measured
from plait.planning.types import Plan, Step

__all__ = ["bytes_passed", "bytes_read", "bytes_to_fetch", "files_read", "measuring", "passes", "step_bytes", "tally"]


def passes(step: Step) -> int:
    """How often the step's inputs are read: once, and once for all that its parameters ask for in a round of measuring."""
    if step.action == "copy":
        return 1
    method = find_method(step.method).chosen(step.parameters)
    k = len(step.sources)
    each = measuring(method, step.parameters, k, step.size)
    found = 1 + (method.locality == "span") + sum(max(each[name] for name in names) for names in method.rounds)
    for name, parameters in step.post:  # which see what was merged as one model more
        found += sum(measuring(find_method(name, post=True), parameters, k + 1, step.size).values())
    return found


def measuring(method: Method, parameters: Mapping[str, Any], k: int, size: int) -> dict[str, int]:
    """How many passes each measured argument needs; as far as parameters tell, for nothing is measured yet."""
    known = {**dict.fromkeys(method.measured, np.ones((k, 1))), **_columns(parameters)}
    return {name: _passes_of(measured, known, k, size) for name, measured in method.measured.items()}


def _passes_of(measured: Measured, known: Mapping[str, Any], k: int, size: int) -> int:
    try:
        made = measured.make(known, k, max(1, size))
        return made.passes() if isinstance(made, Quantiles) else int(made.needed())
    except Exception:  # noqa: BLE001 - what is measured may be taken from ones that stand for what is not known
        return 1


def _columns(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: np.asarray(value, np.float64).reshape(-1, 1) if isinstance(value, tuple) else value
        for name, value in parameters.items()
    }


def step_bytes(step: Step) -> int:
    """Bytes that one pass over the step's inputs reads, those of earlier stages' inputs included."""
    return sum(
        step_bytes(source.step) * passes(source.step) if source.step else source.nbytes for source in step.inputs
    )


def bytes_read(plan: Plan) -> int:
    """Bytes that one pass over every input reads from its files; what several tensors are made from counts once."""
    total, made = 0, dict[tuple[int, StoredTensor], int]()
    for step in plan.steps:
        for source in step.inputs:
            if source.tensor is None or source.tensor.derived is None:
                total += source.nbytes
            else:
                made.update({(source.model, held): held.nbytes for held in source.tensor.held})
    return total + sum(made.values())


def bytes_passed(plan: Plan) -> int:
    """Bytes of every input as a method is given it, which progress counts: those of bfloat16 for a weight in 4 bits."""
    return sum(source.size * DTYPES[source.dtype].size for step in plan.steps for source in step.inputs)


def files_read(plan: Plan) -> list[str]:
    """Return the files that the plan reads weights from."""
    sources = (source for step in (*plan.stage_steps, *plan.steps) for source in step.inputs)
    parts = (part for source in sources if source.tensor is not None for part in source.tensor.held)
    return list(dict.fromkeys(part.file for part in parts))


def bytes_to_fetch(plan: Plan) -> int:
    """Bytes of those files that are still on a hub."""
    return sum(away.size for file in files_read(plan) if (away := partial_file(file)) is not None)


def tally(plan: Plan) -> Counter[str]:
    """Count the output's tensors by what is done with them."""
    return Counter(step.method if step.action == "merge" else "copied" for step in plan.steps)
