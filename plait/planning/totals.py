"""Sums over a plan: bytes read, peak memory, counts."""

from __future__ import annotations

from collections import Counter

import numpy as np

from plait.dtypes import DTYPES
from plait.methods import find_method
from plait.methods.measures import Quantiles
from plait.methods.method import Method
from plait.planning.types import Plan, Step

__all__ = ["bytes_read", "passes", "step_bytes", "tally"]


def passes(step: Step) -> int:
    """How often the step's inputs are read: once, and once for each measurement that its parameters ask for."""
    if step.action == "copy":
        return 1
    method = find_method(step.method).chosen(step.parameters)
    return 1 + (method.locality == "span") + sum(_measured(method, name, step) for name in method.measured)


def _measured(method: Method, name: str, step: Step) -> int:
    """How many passes the measure behind one argument needs; as far as parameters tell, for nothing is measured yet."""
    k = len(step.sources)
    known = {**dict.fromkeys(method.measured, np.ones((k, 1))), **_columns(step)}
    try:
        made = method.measured[name].make(known, k, max(1, step.size))
        return made.passes() if isinstance(made, Quantiles) else int(made.needed())
    except Exception:  # noqa: BLE001 - what is measured may be taken from ones that stand for what is not known
        return 1


def _columns(step: Step) -> dict[str, object]:
    return {
        name: np.asarray(value, np.float64).reshape(-1, 1) if isinstance(value, tuple) else value
        for name, value in step.parameters.items()
    }


def step_bytes(step: Step) -> int:
    """Bytes that one pass over the step's inputs reads, those of earlier stages' inputs included."""
    return sum(
        step_bytes(source.step) * passes(source.step) if source.step else source.size * DTYPES[source.dtype].size
        for source in step.inputs
    )


def bytes_read(plan: Plan) -> int:
    """Bytes that the last pass over every input reads, as progress counts them."""
    return sum(source.size * DTYPES[source.dtype].size for step in plan.steps for source in step.inputs)


def tally(plan: Plan) -> Counter[str]:
    """Count the output's tensors by what is done with them."""
    return Counter(step.method if step.action == "merge" else "copied" for step in plan.steps)
