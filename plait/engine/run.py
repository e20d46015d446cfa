"""A merge from recipe to folder."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock as ThreadLock
from typing import Any

from plait.checkpoint.io import FileReader, FileWriter
from plait.engine.device import device_named
from plait.engine.folder import check_output, discard, make_folder, partial_folder, publish, require_space
from plait.engine.hashes import Registry
from plait.engine.journal import Journal
from plait.engine.verify import check_lock, inputs_without_effect, model_class_faults, verify_folder
from plait.engine.work import Work
from plait.errors import MergeError
from plait.output.card import licences
from plait.output.files import write_side_files
from plait.output.lock import input_hashes
from plait.planning.memory import fit_threads, room_to_keep
from plait.planning.types import Plan

__all__ = ["Event", "MergeResult", "execute"]

_JOURNAL = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: `kind` is start, resume, progress, warning, verify or done."""

    kind: str
    text: str = ""
    bytes_read: int = 0
    bytes_written: int = 0


@dataclass(frozen=True)
class MergeResult:
    """What a merge came to."""

    path: Path
    plan: Plan
    seconds: float
    bytes_read: int
    bytes_written: int
    hashes: dict[str, str]
    """Content hash of every input tensor that was read, by "model: tensor"."""
    warnings: tuple[str, ...]


@dataclass
class _Meter:
    """Adds up progress from all threads and passes it on."""

    tell: Callable[[Event], None]
    read: int = 0
    written: int = 0

    def __post_init__(self) -> None:
        self._lock = ThreadLock()

    def __call__(self, name: str, read: int, written: int) -> None:
        with self._lock:
            self.read += read
            self.written += written
            self.tell(Event("progress", name, self.read, self.written))


def execute(
    plan: Plan,
    out: str | os.PathLike[str],
    *,
    threads: int | None = None,
    memory: int = 1 << 30,
    device: str = "cpu",
    resume: bool = True,
    overwrite: bool = False,
    verify: bool = True,
    allow_nonfinite: bool = False,
    shard_size: int,
    on_event: Callable[[Event], None] | None = None,
) -> MergeResult:
    """Carry out a plan. See `plait.merge` for the arguments and errors."""
    tell = on_event or (lambda _event: None)
    began = time.monotonic()
    out = Path(out)
    check_output(out, [model.path for model in plan.models if not model.stage], overwrite=overwrite)
    chosen = device_named(device)
    workers = fit_threads(plan, chosen, threads or os.cpu_count() or 1, memory)
    keep = room_to_keep(plan, workers, memory, chosen)
    partial = partial_folder(out)
    if not resume:
        discard(partial)
    make_folder(partial)
    with Journal(partial / _JOURNAL, fingerprint(plan)) as journal, FileReader() as reader, FileWriter() as writer:
        if not journal.same:
            _clear(partial)
        registry = Registry()
        journal.restore(registry)
        _lay_files(plan, partial, writer, fresh=not journal.done)
        kind = "resume" if journal.done else "start"
        tell(Event(kind, f"{len(journal.done)} units are there already" if journal.done else str(out)))
        meter = _Meter(tell)
        work = Work(plan, partial, chosen, workers, reader, writer, journal, registry, meter, allow_nonfinite, keep)
        work.run()
        hashes = input_hashes(plan, registry)
        check_lock(plan, hashes)
        write_side_files(plan, partial, out, hashes, shard_size)
        warnings = [*_after(plan, work, registry)]
        if verify:
            tell(Event("verify", str(out), meter.read, meter.written))
            verify_folder(plan, partial)
            faults = model_class_faults(partial, plan)
            if faults:
                raise MergeError("The output does not fit its own config: " + "; ".join(faults) + f". It is left in {partial}.")
    (partial / _JOURNAL).unlink()
    publish(partial, out)
    for text in warnings:
        tell(Event("warning", text))
    tell(Event("done", str(out), meter.read, meter.written))
    return MergeResult(out, plan, time.monotonic() - began, meter.read, meter.written, hashes, tuple(warnings))


def fingerprint(plan: Plan) -> str:
    """Tell one plan from another: its steps, its layout, and the files that it reads, by size and time of change."""
    state = hashlib.blake2b(digest_size=16)
    files: dict[str, tuple[int, int]] = {}

    def describe(value: Any) -> Any:
        if hasattr(value, "__dataclass_fields__"):
            skipped = {"header", "explained", "config"}
            return [describe(getattr(value, name)) for name in value.__dataclass_fields__ if name not in skipped]
        if isinstance(value, (tuple, list)):
            return [describe(one) for one in value]
        if isinstance(value, dict):
            return {str(key): describe(one) for key, one in value.items()}
        return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)

    for place in plan.placed:
        state.update(json.dumps(describe(place), sort_keys=True).encode())
        for source in place.step.inputs:
            if source.tensor is not None and source.tensor.file not in files:
                found = Path(source.tensor.file).stat()
                files[source.tensor.file] = (found.st_size, found.st_mtime_ns)
    for step in plan.stage_steps:
        for source in step.inputs:
            if source.tensor is not None and source.tensor.file not in files:
                found = Path(source.tensor.file).stat()
                files[source.tensor.file] = (found.st_size, found.st_mtime_ns)
    state.update(json.dumps([sorted(files.items()), plan.seed, [f.name for f in plan.files]]).encode())
    return state.hexdigest()


def _clear(partial: Path) -> None:
    for entry in partial.iterdir():
        if entry.name != _JOURNAL:
            discard(entry) if entry.is_dir() else entry.unlink()


def _lay_files(plan: Plan, partial: Path, writer: FileWriter, *, fresh: bool) -> None:
    """Make every file of weights at its full size, header first; keep those that are there already."""
    missing = [file for file in plan.files if fresh or _size(partial / file.name) != file.size]
    require_space(partial, sum(file.size for file in missing))
    for file in missing:
        writer.create(str(partial / file.name), file.size)
    for file in plan.files:
        writer.write_at(str(partial / file.name), 0, file.header)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _after(plan: Plan, work: Work, registry: Registry) -> list[str]:
    """Warnings that only the data could tell."""
    texts = [
        f"{reference} is byte for byte the base wherever it is merged, so it changed nothing."
        for reference in inputs_without_effect(plan, registry, work.prepared)
    ]
    if work.differing:
        names = sorted(work.differing)
        texts.append(f"{len(names)} integer tensors differ between the inputs; the first model's were copied: {', '.join(names[:4])}.")
    _, clash = licences(plan.models)
    return [*texts, clash] if clash else texts
