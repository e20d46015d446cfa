"""The one loop over steps: units of work on threads, each writing its own byte ranges."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from plait.checkpoint.io import FileReader, FileWriter
from plait.dtypes import DTYPES
from plait.engine.device import Cpu, Device
from plait.engine.hashes import CHUNK, Registry, Streams
from plait.engine.journal import Journal
from plait.engine.kept import Kept
from plait.engine.over_model import Together, rounds
from plait.engine.prepare import Shared, columns, generator, known_of, needs_preparing, prepare, prepare_all, sample
from plait.engine.threads import run_on_threads
from plait.engine.tiles import Prepared, Tiler, blamed, method_of
from plait.methods.measures import SAMPLE, Measure, Several
from plait.ops import Rng
from plait.planning.types import Placed, Plan, Step

__all__ = ["ENOUGH", "Progress", "Task", "Work", "digest_of_unit", "range_of", "tasks_of", "units_of"]

_AT_ONCE = 1 << 22  # bytes, or elements
ENOUGH = 1 << 27
"""Output elements from which on a merge compiles loops of its own (half a second each, once); the bytes are the same."""
Progress = Callable[[str, int, int], None]
"""Called with (tensor, bytes read, bytes written) after each batch, from any thread."""


@dataclass(frozen=True, slots=True)
class Task:
    """What one thread takes at a time: a unit of a tensor, or all units of one that must be measured first."""

    index: int
    units: tuple[int, ...]
    cost: int


def units_of(step: Step) -> int:
    """How many units a step is cut into. What depends on whole rows or the whole tensor is one."""
    if step.action == "merge" and method_of(step).locality in {"row", "matrix"}:
        return 1
    return max(1, -(-step.size // CHUNK))


def range_of(step: Step, unit: int) -> tuple[int, int]:
    """The elements [begin, end) of one of the step's units."""
    if units_of(step) == 1:
        return 0, step.size
    return unit * CHUNK, min((unit + 1) * CHUNK, step.size)


def tasks_of(placed: Sequence[Placed]) -> list[Task]:
    """Cut the plan into tasks, the longest first so that threads finish together; equal ones in file order."""
    tasks = []
    for index, place in enumerate(placed):
        count = units_of(place.step)
        cost = sum(source.size * DTYPES[source.dtype].size for source in place.step.inputs)
        if needs_preparing(place.step):
            tasks.append(Task(index, tuple(range(count)), 2 * cost))
        else:
            tasks += [Task(index, (unit,), cost // count) for unit in range(count)]
    return sorted(tasks, key=lambda task: -task.cost if len(task.units) > 1 or task.cost > CHUNK else 0)


@dataclass
class Work:
    """Everything that the threads of one merge share."""

    plan: Plan
    folder: Path
    device: Device
    threads: int
    reader: FileReader
    writer: FileWriter
    journal: Journal
    registry: Registry
    progress: Progress
    allow_nonfinite: bool = False
    keep: int = 0
    """Bytes that each thread may keep of what it measures."""
    prepared: dict[Step, Prepared] = field(default_factory=dict)
    shared: Shared = field(default_factory=dict)
    """What `scope: model` had measured before anything is written."""
    generators: dict[Step, Rng | None] = field(default_factory=dict)
    differing: set[str] = field(default_factory=set)
    digests: dict[tuple[int, int], str] = field(default_factory=dict)
    """(placed index, unit) -> hex digest of its bytes in the output."""
    stop: threading.Event = field(default_factory=threading.Event)

    @cached_property
    def fusing(self) -> bool:
        """Whether the merge is so large that compiling loops for it pays."""
        return isinstance(self.device, Cpu) and sum(place.step.size for place in self.plan.placed) >= ENOUGH

    def run(self) -> None:
        """Make every output byte. Raises the first error of any thread, after all have stopped."""
        self._measure_groups()
        run_on_threads(tasks_of(self.plan.placed), lambda: _Worker(self).run, self.threads, self.stop)
        self._hash_the_rest()

    def _hash_the_rest(self) -> None:
        """Read what of the inputs no thread has read in order, so that every tensor has its hash."""
        streams = Streams(self.registry)
        for step in (*self.plan.stage_steps, *self.plan.steps):
            for source in step.inputs:
                if source.tensor is not None and self.registry.tensor(source.tensor) is None:
                    size = DTYPES[source.dtype].size
                    for start in range(0, max(1, source.size), _AT_ONCE):
                        raw = np.empty(min(_AT_ONCE, source.size - start) * size, np.uint8)
                        self.reader.read_elements(source.tensor, start, raw)
                        streams.feed(source.tensor, start * size, raw)

    def _measure_groups(self) -> None:
        """Gather what is measured over the whole model, before anything is written."""
        for together in rounds(self.plan, self.shared):
            at_once: dict[tuple[Step, ...], list[Together]] = {}
            for group in together:
                at_once.setdefault(group.steps, []).append(group)
            for steps, groups in at_once.items():
                for group, value in zip(groups, self._measured(steps, groups), strict=True):
                    for step in steps:
                        self.shared.setdefault(step, {})[group.argument] = np.asarray(value, np.float64)

    def _measured(self, steps: Sequence[Step], groups: Sequence[Together]) -> Any:
        with blamed(steps[0]):
            measure = Several([group.measure(self.shared) for group in groups])
        if measure.needed():
            self._prime(measure, steps)
            again = True
            while again:
                self._one_pass(measure, steps)
                again = measure.finish_pass()
        return measure.result()

    def _prime(self, measure: Measure, steps: Sequence[Step]) -> None:
        if measure.wants_sample():
            worker = _Worker(self)
            total = sum(step.size for step in steps)
            # In proportion to size: were small tensors drawn more often, the sample would mislead.
            parts = [sample(step, worker.inner(step), 4 * SAMPLE * step.size // total) for step in steps]
            measure.prime(np.concatenate(parts, axis=1))

    def _generator(self, step: Step) -> Rng | None:
        if step not in self.generators:
            self.generators[step] = generator(step, self.reader, self.plan.seed)
        return self.generators[step]

    def _one_pass(self, measure: Measure, steps: Sequence[Step]) -> None:
        spans = [(step, *range_of(step, unit)) for step in steps for unit in range(units_of(step))]

        def start() -> Callable[[tuple[Step, int, int]], None]:
            worker, fork = _Worker(self), measure.fork()
            forks.append(fork)

            def see(span: tuple[Step, int, int]) -> None:
                step, low, high = span
                with blamed(step):
                    fork.enter(columns(known_of(step, self.shared)))
                    worker.inner(step).measure(fork, step, low, high, self._generator(step))
                self.progress(f"measuring {step.name}", 0, 0)  # what is read is counted when the tensor is made

            return see

        forks: list[Any] = []
        run_on_threads(spans, start, self.threads, self.stop)
        for fork in forks:
            measure.join(fork)


def digest_of_unit(work: Work, reader: FileReader, place: Placed, unit: int) -> str:
    """Digest what the output file holds where the unit belongs."""
    begin, end = range_of(place.step, unit)
    size = DTYPES[place.step.dtype].size
    file = str(work.folder / work.plan.files[place.file].name)
    state = xxhash.xxh3_128()
    buffer = np.empty(min(_AT_ONCE, (end - begin) * size), np.uint8)
    for start in range(begin * size, end * size, _AT_ONCE):
        part = buffer[: min(_AT_ONCE, end * size - start)]
        reader.read_into(file, place.offset + start, part)
        state.update(part.data)
    return state.hexdigest()


class _Worker:
    """One thread's share: its tiler, its running hashes."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.streams = Streams(work.registry)
        self.kept = Kept(work.keep) if work.keep else None
        self.making = self._tiler(self.streams)
        self.measuring = self._tiler(None)

    def _tiler(self, streams: Streams | None) -> Tiler:
        work = self.work
        return Tiler(
            work.plan,
            work.reader,
            work.device,
            work.prepared,
            streams,
            work.allow_nonfinite,
            kept=self.kept,
            stop=work.stop,
            fusing=work.fusing,
        )

    def inner(self, step: Step) -> Tiler:
        """Return the measuring tiler, once all that the step's inputs need is known."""
        for source in step.inputs:
            if source.step is not None:
                prepare_all(source.step, self.work.prepared, self._prepare)
        return self.measuring

    def _prepare(self, step: Step) -> Prepared:
        with blamed(step):
            return prepare(step, self.measuring, self.work.plan.seed, self.work.shared)

    def run(self, task: Task) -> None:
        """Make the task's units, save those that an earlier run has left intact."""
        place = self.work.plan.placed[task.index]
        todo = [unit for unit in task.units if not self._intact(task.index, place, unit)]
        if todo:
            if self.kept:
                self.kept.begin(place.step if needs_preparing(place.step) else None)
            prepare_all(place.step, self.work.prepared, self._prepare)
            for unit in todo:
                self._make(task.index, place, unit)
            if len(task.units) == units_of(place.step):
                self.work.prepared.pop(place.step, None)

    def _intact(self, index: int, place: Placed, unit: int) -> bool:
        """Whether the file still holds what the journal says was written."""
        work = self.work
        wanted = work.journal.done.get((index, unit))
        if wanted is None or digest_of_unit(work, work.reader, place, unit) != wanted:
            return False
        work.digests[index, unit] = wanted
        begin, end = range_of(place.step, unit)
        count = end - begin
        work.progress(place.step.name, self._bytes_read(place.step, count), count * DTYPES[place.step.dtype].size)
        return True

    def _bytes_read(self, step: Step, count: int) -> int:
        return count * sum(DTYPES[source.dtype].size for source in step.inputs)

    def _make(self, index: int, place: Placed, unit: int) -> None:
        step, work = place.step, self.work
        size = DTYPES[step.dtype].size
        begin, end = range_of(step, unit)
        file = str(work.folder / work.plan.files[place.file].name)
        state = xxhash.xxh3_128()
        out = np.empty(0, np.uint8)
        for low, high in self.making.spans(step, begin, end, work.device.batch):
            if out.nbytes < (high - low) * size:
                out = np.empty((high - low) * size, np.uint8)
            part = out[: (high - low) * size]
            self.making.make(step, low, high, part)
            state.update(part.data)
            work.writer.write_at(file, place.offset + low * size, part)
            work.progress(step.name, self._bytes_read(step, high - low), len(part))
        digest = state.hexdigest()
        work.digests[index, unit] = digest
        differing, self.making.differing = sorted(self.making.differing), set()
        work.differing.update(differing)
        work.journal.record(index, unit, digest, self.streams.take_finished(), differing)
