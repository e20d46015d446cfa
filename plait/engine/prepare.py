"""What steps need before their first tile: identities, generators, measurements over a tensor or the whole model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from plait.checkpoint.io import FileReader
from plait.dtypes import DTYPES
from plait.engine.hashes import content_identity, sample_spans
from plait.engine.tiles import Prepared, Tiler, applied, is_wide, method_of
from plait.methods import Method
from plait.methods.measures import SAMPLE, Gram, Measure
from plait.ops import Rng, rng_key
from plait.ops.pipeline import pipeline_of
from plait.planning.types import Plan, Source, Step

__all__ = ["Group", "group_measure", "groups_of", "identity", "needs_preparing", "prepare", "prepare_all", "sample"]

Group = tuple[str, str, str, tuple[int, ...], tuple[tuple[str, Any], ...]]
"""Steps measured together: stage, method, argument, models, parameters that decide."""


def prepare(step: Step, tiler: Tiler, seed: int, shared: dict[Group, Any]) -> Prepared:
    """Run the passes that one step needs, and return what its tiles need to know.

    `shared` has what was measured over the whole model; steps inside `step` must have been prepared.
    """
    method = method_of(step)
    known = _arguments(step)
    prepared = Prepared(method, known)
    if step.size == 0:
        return prepared
    if method.random:
        keys = [rng_key(seed, step.name, identity(source, tiler.reader)) for source in step.sources]
        prepared.rng = Rng(np.array(keys, np.uint64))
    if method.locality == "span":
        gram = _pass_over(Gram(len(step.sources)), step, tiler, prepared.rng)
        prepared.coefficients = np.asarray(method.run(gram, **known), np.float64)
        return _with_pipeline(step, prepared)
    parameters = dict(known)
    for name, measured in method.measured.items():
        group = _group(step, name)
        if group in shared:
            value = shared[group]
        else:
            arguments = {key: _column(entry) for key, entry in parameters.items()}
            value = _pass_over(measured.make(arguments, len(step.sources), step.size), step, tiler, prepared.rng)
        parameters[name] = np.asarray(value, np.float64)
    prepared.arguments = parameters
    return _with_pipeline(step, prepared)


def _with_pipeline(step: Step, prepared: Prepared) -> Prepared:
    """Note the step as one call, where it can be made in one."""
    if prepared.method.locality in {"element", "span", "measured"} and not is_wide(step):
        run = partial(applied, step, prepared, start=0, shaped=_column)
        prepared.pipeline = pipeline_of(run, len(step.sources))
    return prepared


def _arguments(step: Step) -> dict[str, Any]:
    return {
        name: np.array(value, np.float64) if isinstance(value, tuple) else value
        for name, value in step.parameters.items()
    }


def _column(value: Any) -> Any:
    return value.reshape(*value.shape, 1) if isinstance(value, np.ndarray) else value


def _pass_over(measure: Measure, step: Step, tiler: Tiler, rng: Rng | None) -> Any:
    """Drive one measure over one tensor, in as many passes as it asks for."""
    if not measure.needed():
        return measure.result()
    if measure.wants_sample():
        measure.prime(sample(step, tiler, SAMPLE))
    again = True
    while again:
        tiler.measure(measure, step, 0, step.size, rng)
        again = measure.finish_pass()
    return measure.result()


def sample(step: Step, tiler: Tiler, wanted: int) -> Any:
    """Read `[k, about wanted]` entries of the step's stack, evenly spread; the same ones every time."""
    parts = []
    for start, stop in sample_spans(step.size, wanted):
        for stack in tiler.observe(step, start, stop):
            host = stack if isinstance(stack, np.ndarray) else stack.detach().cpu().numpy()
            parts.append(host.reshape(host.shape[0], -1).copy())
    return np.concatenate(parts, axis=1)


def _group(step: Step, argument: str) -> Group | None:
    """The group in which this argument is measured, or None when it is measured tensor by tensor."""
    method = method_of(step)
    if step.parameters.get("scope") != "model" or not method.measured[argument].scoped:
        return None
    models = tuple(source.model for source in step.sources)
    deciding = tuple(
        (name, value) for name, value in step.parameters.items() if isinstance(value, tuple) and name == "density"
    )
    return step.stage, method.name, argument, models, deciding


def groups_of(plan: Plan) -> dict[Group, list[Step]]:
    """Collect the steps that are measured together: stage by stage, for a stage is measured on what earlier ones make."""
    order = {stage.name or "": number for number, stage in enumerate(plan.stages)}
    steps = sorted((*plan.stage_steps, *plan.steps), key=lambda step: order.get(step.stage, len(order)))
    groups: dict[Group, list[Step]] = {}
    for step in steps:
        if step.action == "merge":
            for argument in method_of(step).measured:
                group = _group(step, argument)
                if group is not None:
                    groups.setdefault(group, []).append(step)
    return groups


def group_measure(group: Group, steps: Sequence[Step]) -> Measure:
    """Make the measure that all steps of a group fill."""
    first = steps[0]
    arguments = {key: _column(value) for key, value in _arguments(first).items()}
    return method_of(first).measured[group[2]].make(arguments, len(first.sources), sum(step.size for step in steps))


def identity(source: Source, reader: FileReader) -> bytes:
    """Tell a model's tensor from another's by content: a hash of its type, shape and up to 16 spread pages.

    A tensor that another stage makes is told by how it is made.
    """
    if source.step is not None:
        inner = source.step
        parts = [repr((inner.method, sorted(inner.parameters.items()), inner.dtype, inner.post)).encode()]
        return xxhash.xxh3_128(b"".join([*parts, *(identity(s, reader) for s in inner.inputs)])).digest()
    tensor = source.tensor
    if tensor is None:
        raise AssertionError("a source is a tensor or a step")
    size = DTYPES[tensor.dtype].size

    def read(start: int, stop: int) -> npt.NDArray[np.uint8]:
        page = np.empty((stop - start) * size, np.uint8)
        reader.read_elements(tensor, start, page)
        return page

    return content_identity(tensor.dtype, tensor.shape, tensor.size, read)


def needs_preparing(step: Step) -> bool:
    """Whether passes over the tensor come before its tiles, so that all of it is one thread's work."""
    if step.action == "copy":
        return any(needs_preparing(source.step) for source in step.sources if source.step)
    method: Method = method_of(step)
    own = method.locality != "element" or bool(method.measured) or method.random is not None
    return own or any(needs_preparing(source.step) for source in step.inputs if source.step)


def prepare_all(step: Step, known: dict[Step, Prepared], make: Callable[[Step], Prepared]) -> None:
    """Prepare what the step's inputs need, then the step."""
    if step in known:
        return
    for source in step.inputs:
        if source.step is not None:
            prepare_all(source.step, known, make)
    if step.action == "merge":
        known[step] = make(step)
