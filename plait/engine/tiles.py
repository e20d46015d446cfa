"""From a step to output bytes, tile by tile. One `Tiler` a thread."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plait.checkpoint.elements import are_finite, load
from plait.checkpoint.io import FileReader
from plait.dtypes import DTYPES
from plait.engine.device import Batch, Cpu, Device, Raw
from plait.engine.hashes import Streams
from plait.engine.kept import Kept
from plait.engine.threads import Stopped
from plait.errors import MergeError, PlaitError
from plait.methods import Method, find_method
from plait.methods.measures import Measure
from plait.ops import BLOCK, Rng, tile_scope, weighted_sum
from plait.ops.codec import KINDS
from plait.ops.fusing import Program, grid_can, models_of_grid
from plait.ops.scratch import empty
from plait.planning.types import Plan, Source, Step

__all__ = ["Prepared", "Tiler", "applied", "blamed", "is_wide", "method_of"]

_MEND = "Mend or replace that input; --allow-nonfinite goes on all the same."


@dataclass
class Prepared:
    """What is known about a step before its tiles run: its method, arguments and measurements."""

    method: Method
    arguments: dict[str, Any]
    """Every keyword of the method but the generator; per-model numbers are `[k]` float64."""
    coefficients: np.ndarray[Any, Any] | None = None
    """What a span method returned."""
    rng: Rng | None = None
    post: list[dict[str, Any]] = field(default_factory=list)
    """The arguments of each post-step, with what was measured for it."""
    program: Program | None = None
    """The step as one loop, where it can be written so."""


def method_of(step: Step) -> Method:
    """Return the method, or the variant of it, that the step's parameters ask for."""
    return find_method(step.method).chosen(step.parameters)


def is_wide(step: Step) -> bool:
    """Whether the step computes in float64: only for float64 output."""
    return step.dtype == "F64"


@contextmanager
def blamed(step: Step) -> Iterator[None]:
    """Turn what a method raises inside into a MergeError that names the step."""
    try:
        yield
    except (PlaitError, Stopped):
        raise
    except Exception as error:
        what = f"{step.method or 'copying'} failed with {type(error).__name__}: {error}"
        raise MergeError(f"{step.name}: {what}") from error


@dataclass
class Tiler:
    """Reads, computes and encodes tiles; knows nothing of files written, threads or journals."""

    plan: Plan
    reader: FileReader
    device: Device
    prepared: Mapping[Step, Prepared]
    streams: Streams | None = None
    """Set while output is being made: then what is read is hashed."""
    allow_nonfinite: bool = False
    differing: set[str] = field(default_factory=set)
    """Copied tensors (integer buffers) that are not the same in all inputs."""
    kept: Kept | None = None
    """What a measuring pass has read, for the making pass."""
    stop: threading.Event | None = None
    """Once set, no further batch is read."""
    fusing: bool = False
    """Whether there is so much to do that loops are compiled for it."""
    _outer: Step | None = None
    _whole: dict[Step, Raw] = field(default_factory=dict)
    """Tensors that matrix methods of other stages made for the step at hand."""

    def spans(self, step: Step, start: int, stop: int, length: int) -> Iterator[tuple[int, int]]:
        """Cut [start, stop) into tiles of about `length` elements that suit the method's locality."""
        grain = self._grain(step, length)
        for begin in range(start, stop, grain) if stop > start else ((start,) if step.size == 0 else ()):
            yield begin, min(begin + grain, stop)

    def _grain(self, step: Step, length: int) -> int:
        locality = method_of(step).locality if step.action == "merge" else "element"
        if locality == "matrix":
            return max(1, step.size)
        if locality == "row":
            columns = max(1, step.size // max(1, _rows(step)))
            return max(1, length // columns) * columns
        return max(BLOCK, length // BLOCK * BLOCK)

    def make(self, step: Step, start: int, stop: int, out: Raw) -> None:
        """Write the bytes of elements [start, stop) of the step's output into `out`."""
        self._begin(step)
        self._make(step, start, stop, out)

    def _begin(self, step: Step) -> None:
        """Let go of what another step needed."""
        if step is not self._outer:
            self._outer = step
            self._whole.clear()

    def _make(self, step: Step, start: int, stop: int, out: Raw) -> None:
        if self.stop is not None and self.stop.is_set():
            raise Stopped
        if step.action == "copy":
            self._copy(step, start, stop, out)
            return
        if step.size == 0:
            for source in step.inputs:
                self._read(source, 0, 0)
            return
        size = DTYPES[step.dtype].size
        with tile_scope():
            batch = self._batch(step, start, stop)
            prepared = self.prepared[step]
            memory = prepared.rng.memory if prepared.rng else None
            if prepared.program and self.device.merge(batch, prepared.program, step.dtype, start, out, memory):
                return
            for begin, end in self.spans(step, start, stop, self.device.tile):
                with tile_scope():
                    part = out[(begin - start) * size : (end - start) * size]
                    self._tile(step, batch, start, (begin, end), part)

    def _batch(self, step: Step, start: int, stop: int, *, keep: bool = False) -> Batch:
        """Read elements [start, stop) of all inputs; `keep` them for when they are asked for again."""
        inputs = (*step.sources, step.base) if step.base is not None else step.sources
        dtypes = [source.dtype for source in inputs]
        if len(set(dtypes)) > 1 and not set(dtypes) <= KINDS.keys():
            return Batch([self._read(source, start, stop) for source in inputs], dtypes, step.base is not None)
        if len(set(dtypes)) > 1:
            widened: Raw = empty((len(inputs), (stop - start) * 4), np.uint8)
            for source, row in zip(inputs, widened, strict=True):
                with tile_scope():
                    load(self._read(source, start, stop), source.dtype, row.view(np.float32))
            return Batch(list(widened), ["F32"] * len(inputs), step.base is not None, widened)
        shape = (len(inputs), (stop - start) * DTYPES[dtypes[0]].size)
        grid = self.kept.find(step, start, shape) if self.kept else None
        if grid is not None:
            self._feed(inputs, start, grid)
            return Batch(list(grid), dtypes, step.base is not None, grid)
        grid = self.kept.room(step, start, shape) if self.kept and keep else None
        if grid is None:
            grid = empty(shape, np.uint8)
        for source, row in zip(inputs, grid, strict=True):
            self._read_into(source, start, stop, row)
        return Batch(list(grid), dtypes, step.base is not None, grid)

    def _feed(self, inputs: Sequence[Source], start: int, grid: Raw) -> None:
        """Hash what was read before."""
        if self.streams is not None:
            for source, row in zip(inputs, grid, strict=True):
                if source.tensor is not None:
                    self.streams.feed(source.tensor, start * DTYPES[source.dtype].size, row)

    def _tile(self, step: Step, batch: Batch, start: int, span: tuple[int, int], out: Raw) -> None:
        prepared = self.prepared[step]
        stack, base = self._stack(step, prepared.method, batch, span[0] - start, span[1] - start)
        with blamed(step):
            merged = self.merged(step, prepared, stack, span[0])
            finite = self.device.encode(merged, step.dtype, base, out)
        self._check_output(step, finite=finite)

    def _stack(self, step: Step, method: Method, batch: Batch, low: int, high: int) -> tuple[Any, Any]:
        stack, origin, finite = self.device.stack(batch, low, high, wide=is_wide(step))
        self._check_inputs(step, finite)
        return self._shaped(step, method, stack), origin

    def _check_inputs(self, step: Step, finite: Sequence[bool]) -> None:
        if all(finite) or self.allow_nonfinite:
            return
        order = [*step.sources, *([step.base] if step.base is not None else [])]
        bad = order[-1] if step.base is not None and not finite[-1] else order[list(finite).index(False)]
        raise self._bad_input(bad)

    def _bad_input(self, source: Source) -> MergeError:
        owner = self.plan.models[source.model].reference
        return MergeError(f"{source.name} of {owner} has NaN or infinity. {_MEND}")

    def _check_output(self, step: Step, *, finite: bool) -> None:
        if not finite and not self.allow_nonfinite:
            models = ", ".join(dict.fromkeys(self.plan.models[source.model].reference for source in step.inputs))
            what = f"{step.method} of {models} made NaN or infinity in {DTYPES[step.dtype].name}"
            hint = "Check its weights, or choose a wider out_dtype; --allow-nonfinite goes on all the same."
            raise MergeError(f"{step.name}: {what}. {hint}")

    def _shaped(self, step: Step, method: Method, stack: Any) -> Any:
        if method.locality == "row":
            rows = _rows(step)
            return stack.reshape(stack.shape[0], -1, max(1, step.size // max(1, rows)))
        if method.locality == "matrix":
            return stack.reshape(stack.shape[0], *step.shape)
        return stack

    def merged(self, step: Step, prepared: Prepared, stack: Any, start: int) -> Any:
        """Merge one tile, and take those post-steps whose arguments `prepared` has."""

        def shaped(value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                return value
            return self.device.numbers(value.reshape(*value.shape, *[1] * (stack.ndim - 1)), stack)

        return applied(step, prepared, stack, start, shaped)

    def measure(self, measure: Measure, step: Step, start: int, stop: int, rng: Rng | None) -> None:
        """Let a measure see elements [start, stop) of the step's stack."""
        self._begin(step)
        for low, high in self.spans(step, start, stop, self.device.batch):
            if self.stop is not None and self.stop.is_set():
                raise Stopped
            with tile_scope():
                batch = self._batch(step, low, high, keep=True)
                if self._measured_in_one_call(measure, step, batch, low, rng):
                    continue
                for begin, end in self.spans(step, low, high, self.device.tile):
                    with tile_scope():
                        stack = self._stack(step, method_of(step), batch, begin - low, end - low)[0]
                        measure.update(stack, begin, rng.at(begin) if rng else None)

    def _measured_in_one_call(self, measure: Measure, step: Step, batch: Batch, start: int, rng: Rng | None) -> bool:
        if batch.grid is None or not self._in_one_call(step, batch):
            return False
        at = rng.at(start) if rng else None
        finite = measure.update_grid(batch.grid, batch.dtypes[0], start, at, has_base=batch.has_base)
        if finite is None:
            return False
        self._check_inputs(step, finite)
        return True

    def _in_one_call(self, step: Step, batch: Batch) -> bool:
        """Whether loops over raw elements may measure the step."""
        if not self.fusing or not isinstance(self.device, Cpu) or is_wide(step):
            return False
        if method_of(step).locality in {"row", "matrix"}:  # they are measured row by row, or as a whole
            return False
        return grid_can(set(batch.dtypes), len(batch.rows))

    def entries(self, step: Step, spans: Sequence[tuple[int, int]]) -> Any:
        """Return these spans' entries, one after the other, as one stack `[k, n]`, copied; nothing is hashed."""
        self._begin(step)
        inputs = (*step.sources, step.base) if step.base is not None else step.sources
        count = sum(stop - start for start, stop in spans)
        with tile_scope():
            raws = [self._gathered(source, spans, count) for source in inputs]
            batch = Batch(raws, [s.dtype for s in inputs], step.base is not None)
            if self._in_one_call(step, batch):
                rows = models_of_grid(np.stack(raws), batch.dtypes[0], has_base=batch.has_base)
                if rows is not None:
                    return rows.copy()
            stack, _, finite = self.device.stack(batch, 0, count, wide=is_wide(step))
            self._check_inputs(step, finite)
            return stack.copy() if isinstance(stack, np.ndarray) else stack.detach().cpu().numpy()

    def _gathered(self, source: Source, spans: Sequence[tuple[int, int]], count: int) -> Raw:
        size = DTYPES[source.dtype].size
        out: Raw = empty((count * size,), np.uint8)
        if self.fusing and source.tensor is not None:
            self.reader.read_spans(source.tensor, spans, out)
            return out
        at = 0
        for start, stop in spans:
            self._read_into(source, start, stop, out[at : at + (stop - start) * size])
            at += (stop - start) * size
        return out

    def observe(self, step: Step, start: int, stop: int) -> Iterator[Any]:
        """Yield the stack of every tile of [start, stop); it is valid until the next is asked for."""
        self._begin(step)
        for low, high in self.spans(step, start, stop, self.device.tile):
            with tile_scope():
                yield self._stack(step, method_of(step), self._batch(step, low, high), 0, high - low)[0]

    def _read(self, source: Source, start: int, stop: int) -> Raw:
        """Return the bytes of elements [start, stop) of an input."""
        out: Raw = empty(((stop - start) * DTYPES[source.dtype].size,), np.uint8)
        self._read_into(source, start, stop, out)
        return out

    def _read_into(self, source: Source, start: int, stop: int, out: Raw) -> None:
        """Read the bytes of elements [start, stop) of an input, or make them where another stage must."""
        if source.tensor is None:
            self._make_inner(source.made, start, stop, out)
            return
        self.reader.read_elements(source.tensor, start, out)
        if self.streams is not None:
            self.streams.feed(source.tensor, start * DTYPES[source.dtype].size, out)

    def _make_inner(self, step: Step, start: int, stop: int, out: Raw) -> None:
        """Make part of another stage's tensor, widened to what its method must see at once."""
        locality = method_of(step).locality if step.action == "merge" else "element"
        if locality not in {"row", "matrix"}:
            self._make(step, start, stop, out)
            return
        size = DTYPES[step.dtype].size
        grain = self._grain(step, self.device.tile)
        low, high = start // grain * grain, min(-(-stop // grain) * grain, step.size)
        whole = self._whole.get(step)
        if whole is None:
            whole = np.empty((high - low) * size, np.uint8)
            self._make(step, low, high, whole)
            if locality == "matrix":
                self._whole[step] = whole
        out[:] = whole[(start - low) * size : (stop - low) * size]

    def _copy(self, step: Step, start: int, stop: int, out: Raw) -> None:
        self._read_into(step.sources[0], start, stop, out)
        for other in step.sources[1:]:
            with tile_scope():
                if not np.array_equal(self._read(other, start, stop), out):
                    self.differing.add(step.name)
        if DTYPES[step.dtype].is_float and len(out) and not self.allow_nonfinite:
            self._check_finite(step, out)

    def _check_finite(self, step: Step, raw: Raw) -> None:
        if step.dtype in KINDS and are_finite(raw, step.dtype):
            return
        size = DTYPES[step.dtype].size
        for begin in range(0, len(raw), self.device.tile * size):
            with tile_scope():
                part = raw[begin : begin + self.device.tile * size]
                batch = Batch([part], [step.dtype], has_base=False)
                if not self.device.stack(batch, 0, len(part) // size, wide=is_wide(step))[2][0]:
                    raise self._bad_input(step.sources[0])


def applied(step: Step, prepared: Prepared, stack: Any, start: int, shaped: Callable[[Any], Any]) -> Any:
    """Call the method, or add up by its coefficients, then the post-steps; `shaped` readies per-model numbers."""
    kind = np.float64 if is_wide(step) else np.float32
    if prepared.coefficients is not None:
        merged = weighted_sum(stack, shaped(prepared.coefficients))
    else:
        rounded = prepared.method.parameters
        arguments = {
            name: shaped(_as(kind, value) if name in rounded else value) for name, value in prepared.arguments.items()
        }
        if prepared.method.random and prepared.rng is not None:
            arguments[prepared.method.random] = prepared.rng.at(start)
        merged = prepared.method.run(stack, **arguments)
    for (name, _), known in zip(step.post, prepared.post, strict=False):
        declared = find_method(name, post=True)
        rounded = declared.parameters
        arguments = {key: shaped(_as(kind, value) if key in rounded else value) for key, value in known.items()}
        if declared.stack:
            arguments[declared.stack] = stack
        merged = declared.run(merged, **arguments)
    return merged


def _as(kind: type, value: Any) -> Any:
    """Round numbers that a recipe gives to the type that a step computes in; what was measured stays as exact as it is."""
    return value.astype(kind) if isinstance(value, np.ndarray) else value


def _rows(step: Step) -> int:
    """Rows of the tensor as methods with row locality see it: all runs of entries along its last axis."""
    return math.prod(step.shape[:-1])
