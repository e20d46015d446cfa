"""A merge from recipe to folder."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock as ThreadLock

from plait.checkpoint.io import FileReader, FileWriter
from plait.engine.device import device_named
from plait.engine.fetch import fetch_inputs
from plait.engine.fingerprint import fingerprint
from plait.engine.folder import check_output, make_folder, partial_folder, publish, require_space, sweep
from plait.engine.hashes import Registry
from plait.engine.journal import JOURNAL_NAME, Journal
from plait.engine.model_class import model_class_findings
from plait.engine.twins import check_twins
from plait.engine.verify import check_lock, inputs_without_effect, verify_bytes, verify_folder
from plait.engine.work import Work
from plait.errors import MergeError, OutputError
from plait.output.card import licences
from plait.output.files import write_side_files
from plait.output.lock import input_hashes
from plait.planning.memory import fit_threads, kept_bytes, room_to_keep
from plait.planning.totals import bytes_read
from plait.planning.types import Plan

__all__ = ["Event", "MergeResult", "Meter", "execute"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: `kind` is download, start, resume, progress, warning, verify or done."""

    kind: str
    text: str = ""
    bytes_read: int = 0
    """Of inputs as methods are given them: of what is dequantised, the bytes made."""
    bytes_written: int = 0
    fetched: int = 0
    """Bytes of inputs that came from a hub, or were here in part; for `download` alone, as is `to_fetch`."""
    to_fetch: int = 0


@dataclass(frozen=True)
class MergeResult:
    """What a merge came to."""

    path: Path
    plan: Plan
    seconds: float
    bytes_read: int
    """What one pass over the inputs reads from their files."""
    bytes_written: int
    hashes: dict[str, str]
    """Content hash of every input tensor that was read, by "model: tensor"."""
    warnings: tuple[str, ...]


@dataclass
class Meter:
    """Adds up progress from all threads and passes it on."""

    tell: Callable[[Event], None]
    read: int = 0
    written: int = 0

    def __post_init__(self) -> None:
        self._lock = ThreadLock()

    def __call__(self, name: str, read: int = 0, written: int = 0) -> None:
        """Tell of bytes read and written of a tensor."""
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
    sync: bool = False,
    shard_size: int,
    on_event: Callable[[Event], None] | None = None,
) -> MergeResult:
    """Carry out a plan. See `plait.merge` for the arguments and errors."""
    tell = on_event or (lambda _event: None)
    began = time.monotonic()
    out = Path(out)
    check_output(out, [path for model in plan.models for path in model.folders], overwrite=overwrite)
    chosen = device_named(device)
    workers = fit_threads(plan, chosen, _cores() if threads is None else threads, memory)
    keep = room_to_keep(plan, workers, memory, chosen)
    fetch_inputs(plan, lambda name, done, total: tell(Event("download", name, fetched=done, to_fetch=total)), Path(out))
    mark = fingerprint(plan)
    partial = partial_folder(out)
    make_folder(partial)
    meter = Meter(tell)
    with Journal(partial, mark, fresh=not resume, allow_nonfinite=allow_nonfinite) as journal:
        if not journal.same:
            sweep(partial, {JOURNAL_NAME})
        tell(
            Event("resume", f"{len(journal.done)} units are there already")
            if journal.done
            else Event("start", str(out))
        )
        registry = Registry()
        journal.restore(registry)
        with FileReader(keep=kept_bytes(plan.steps)) as reader, FileWriter() as writer:
            check_twins(plan, reader)
            _lay_files(plan, partial, writer, meter)
            work = Work(plan, partial, chosen, workers, reader, writer, journal, registry, meter, allow_nonfinite, keep)
            work.differing.update(journal.differing)
            work.run()
        hashes = input_hashes(plan, registry)
        check_lock(plan, hashes)
        _write_side_files(plan, partial, out, hashes, shard_size)
        warnings = _after(plan, work)
        if verify:
            tell(Event("verify", str(out), meter.read, meter.written))
            warnings += _verified(plan, partial, work)
        publish(partial, out, overwrite=overwrite, sync=sync)
    for text in warnings:
        tell(Event("warning", text))
    tell(Event("done", str(out), meter.read, meter.written))
    return MergeResult(out, plan, time.monotonic() - began, bytes_read(plan), meter.written, hashes, tuple(warnings))


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _lay_files(plan: Plan, partial: Path, writer: FileWriter, meter: Meter) -> None:
    """Make every file of weights at its full size, header first; keep those that are there already."""
    require_space(partial, sum(max(0, file.size - _taken(partial / file.name)) for file in plan.files))
    for file in plan.files:
        path = str(partial / file.name)
        writer.create(path, file.size)
        writer.write_at(path, 0, file.header)
        meter(file.name, 0, len(file.header))


def _taken(path: Path) -> int:
    """Bytes of the disk that the file has: what was never written of a file takes none."""
    if not path.exists():
        return 0
    found = path.stat()
    return int(getattr(found, "st_blocks", found.st_size // 512)) * 512


def _write_side_files(plan: Plan, partial: Path, out: Path, hashes: dict[str, str], shard_size: int) -> None:
    """Write all but the weights, and leave nothing else of an earlier attempt."""
    try:
        sweep(partial, {JOURNAL_NAME, *(file.name for file in plan.files)})
        write_side_files(plan, partial, out, hashes, shard_size)
    except OSError as error:
        free = shutil.disk_usage(partial).free
        raise OutputError(
            f"{error.filename or partial}: cannot be written: {error.strerror} ({free / 1e9:.2f} GB are free). "
            "Run it again after mending that: it goes on where it stopped."
        ) from error


def _after(plan: Plan, work: Work) -> list[str]:
    """Warnings that only the data could tell."""
    texts = [
        f"{reference} is byte for byte the base wherever it is merged, so it changed nothing."
        for reference in inputs_without_effect(plan, work.registry)
    ]
    if work.differing:
        names = sorted(work.differing)
        verb = "tensor that is not a float differs" if len(names) == 1 else "tensors that are no floats differ"
        more = " …" if len(names) > 4 else ""
        texts.append(
            f"{len(names)} {verb} between the inputs; the first model's is kept: {', '.join(names[:4])}{more}."
        )
    _, clash = licences(plan.models)
    return [*texts, clash] if clash else texts


def _verified(plan: Plan, partial: Path, work: Work) -> list[str]:
    """Hold what was written against the plan and its own config; returns warnings.

    Raises:
        MergeError: it does not fit; it stays where it is.
    """
    try:
        verify_folder(plan, partial)
        verify_bytes(work)
        faults, warnings = model_class_findings(partial, plan)
    except MergeError as error:
        raise MergeError(f"{error} It is left in {partial}.") from error
    if faults:
        raise MergeError(f"The output does not fit its own config: {'; '.join(faults)}. It is left in {partial}.")
    return warnings
