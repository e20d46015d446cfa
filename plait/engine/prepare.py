"""What steps need before their first tile: identities, generators, measurements over a tensor or the whole model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from plait.checkpoint.io import FileReader
from plait.dtypes import DTYPES
from plait.engine.after_merge import AfterMerge
from plait.engine.hashes import content_identity, sample_spans
from plait.engine.tiles import Prepared, Tiler, applied, is_wide, method_of
from plait.methods import Method, find_method
from plait.methods.measures import SAMPLE, Gram, Measure, Several
from plait.ops import Rng, rng_key
from plait.ops.fusing import merging
from plait.ops.rng import Memory
from plait.planning.memory import HELD
from plait.planning.totals import passes
from plait.planning.types import Source, Step

__all__ = [
    "GRAM",
    "Shared",
    "columns",
    "generator",
    "identity",
    "known_of",
    "needs_preparing",
    "prepare",
    "prepare_all",
    "sample",
]

GRAM = "gram"
"""What a span method's Gram matrix is called among measured arguments."""
Shared = dict[Step, dict[str, Any]]
"""What was measured before any tensor is made: by step and argument."""


def prepare(step: Step, tiler: Tiler, seed: int, shared: Shared) -> Prepared:
    """Run the passes that one step needs, and return what its tiles need to know.

    `shared` has what was measured before; steps inside `step` must have been prepared.
    """
    method = method_of(step)
    known = _arguments(step)
    before = shared.get(step, {})
    prepared = Prepared(method, known)
    if step.size == 0:
        return prepared
    prepared.rng = generator(step, tiler.reader, seed)
    if prepared.rng is not None and passes(step) > 1:
        prepared.rng = replace(prepared.rng, memory=Memory(HELD))
    if method.locality == "span":
        gram = before[GRAM] if GRAM in before else _pass_over(Gram(len(step.sources)), step, tiler, prepared.rng)
        prepared.coefficients = np.asarray(method.run(gram, **known), np.float64)
    known |= {name: before[name] for name in method.measured if name in before}
    for together in method.rounds:
        names = [name for name in together if name not in before]
        made = [method.measured[name].make(columns(known), len(step.sources), step.size) for name in names]
        values = _pass_over(Several(made), step, tiler, prepared.rng)
        known |= {name: np.asarray(value, np.float64) for name, value in zip(names, values, strict=True)}
    for name, parameters in step.post:
        prepared.post.append(_for_post(find_method(name, post=True), parameters, step, prepared, tiler))
    return _with_program(step, prepared, tiler)


def _for_post(
    declared: Method, parameters: Mapping[str, Any], step: Step, prepared: Prepared, tiler: Tiler
) -> dict[str, Any]:
    """Measure what a post-step needs on what the method and the post-steps so far make."""
    known = dict(parameters)
    merged = partial(tiler.merged, step, prepared)
    for name, measured in declared.measured.items():
        measure = AfterMerge(measured.make(columns(known), len(step.sources) + 1, step.size), merged)
        known[name] = np.asarray(_pass_over(measure, step, tiler, prepared.rng), np.float64)
    return known


def generator(step: Step, reader: FileReader, seed: int) -> Rng | None:
    """Return the generator of a method with randomness, at the first entry of the step's tensor."""
    if not method_of(step).random:
        return None
    return Rng(np.array([rng_key(seed, step.name, identity(source, reader)) for source in step.sources], np.uint64))


def known_of(step: Step, shared: Shared) -> dict[str, Any]:
    """Return the step's parameters, and what was measured for it before: per-model numbers as `[k]` float64."""
    return {**_arguments(step), **shared.get(step, {})}


def columns(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give per-model numbers the trailing axis with which measures are given them: `[k]` becomes `[k, 1]`."""
    return {name: _column(value) for name, value in values.items()}


def _with_program(step: Step, prepared: Prepared, tiler: Tiler) -> Prepared:
    """Note the step as one loop, where it can be written so and there is enough to do."""
    if tiler.fusing and prepared.method.locality in {"element", "span", "measured"} and not is_wide(step):
        run = partial(applied, step, prepared, start=0, shaped=_column)
        prepared.program = merging(run, len(step.sources))
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
    parts, spans = [], sample_spans(step.size, wanted)
    if method_of(step).locality not in {"row", "matrix"}:
        return tiler.entries(step, spans)
    for start, stop in spans:
        for stack in tiler.observe(step, start, stop):
            host = stack if isinstance(stack, np.ndarray) else stack.detach().cpu().numpy()
            parts.append(host.reshape(host.shape[0], -1).copy())
    return np.concatenate(parts, axis=1)


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
    own = own or any(find_method(name, post=True).measured for name, _ in step.post)
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
