"""A merge of adapters from plan to folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from plait.adapters.blas import on_one_thread
from plait.adapters.folder import WEIGHTS_NAME, write_weights
from plait.adapters.low_rank import Wanted
from plait.adapters.merging.clusters import clustered
from plait.adapters.merging.factors import Made, beside, best
from plait.adapters.merging.plan import BASE_LAYER, NO_BASE, AdapterPlan, Making
from plait.adapters.merging.report import AdapterMerge
from plait.adapters.merging.space import Matrix, read_values, space_of
from plait.adapters.merging.write import Finished, Scratch, entries_of, verify, write_side_files
from plait.checkpoint import FileReader, FileWriter, StoredTensor, natural_key
from plait.checkpoint.opening import open_adapter
from plait.engine import work as engine
from plait.engine.device import device_named
from plait.engine.fetch import fetch_inputs
from plait.engine.folder import (
    check_output,
    make_folder,
    partial_folder,
    publish,
    removed_on_failure,
    require_space,
    sweep,
)
from plait.engine.hashes import Registry, Streams
from plait.engine.journal import JOURNAL_NAME, Journal
from plait.engine.run import Event, Meter
from plait.engine.threads import run_on_threads
from plait.engine.verify import check_lock, inputs_without_effect
from plait.errors import ArgumentError, MergeError
from plait.ops.rng import rng_key
from plait.output.card import licences
from plait.planning.layout import lay_out
from plait.planning.memory import fit_threads, room_to_keep
from plait.planning.types import Plan, Step

__all__ = ["Work", "merge_adapters"]

_MERGED, _SCRATCH = "merged.bin", "factors.bin"
_HELD = 4
"""The stacked factors are held in float64, and their decomposition takes up to three times as much again."""


@dataclass(frozen=True, slots=True)
class Work:
    """How a merge is to be carried out; see `plait.merge`."""

    threads: int
    memory: int
    device: str
    overwrite: bool
    verify: bool
    allow_nonfinite: bool
    sync: bool


def merge_adapters(plan: Plan, out: Path, options: Work, tell: Callable[[Event], None]) -> AdapterMerge:
    """Carry out an adapter's plan. See `plait.merge` for the arguments and errors; nothing is kept of one that stops."""
    if not isinstance(plan, AdapterPlan):
        raise ArgumentError("The plan given is not that of a recipe whose output is an adapter.")
    began = time.monotonic()
    read = [model for model in plan.models if model.reference != str(NO_BASE)]
    check_output(out, [model.path for model in read], overwrite=options.overwrite)
    fetch_inputs(plan, lambda name, done, total: tell(Event("download", name, fetched=done, to_fetch=total)), out)
    partial = partial_folder(out)
    make_folder(partial)
    meter = Meter(tell)
    with Journal(partial, "adapter", fresh=True) as journal, removed_on_failure(partial), on_one_thread():
        sweep(partial, {JOURNAL_NAME})
        tell(Event("start", str(out)))
        made = _make(plan, partial, out, options, journal, meter)
        warnings = [*made.warnings, *([text] if (text := licences(read)[1]) else [])]
        publish(partial, out, overwrite=options.overwrite, sync=options.sync)
    for text in warnings:
        tell(Event("warning", text))
    tell(Event("done", str(out), meter.read, meter.written))
    return replace(made, seconds=time.monotonic() - began, warnings=tuple(warnings))


def _make(plan: AdapterPlan, partial: Path, out: Path, options: Work, journal: Journal, meter: Meter) -> AdapterMerge:
    """Make all of the adapter in `partial`."""
    limits = options.threads, options.memory
    with FileReader() as reader, FileWriter() as writer:
        work = _merge_cores(plan, partial, options, (reader, writer, journal), meter)
        hashes = _hashes(plan, reader, work.registry)
        check_lock(plan, hashes)
        merged = _merged_tensors(work.plan, partial)
        finished = _finish(plan, partial, merged, limits, reader, writer, meter)
        modules = tuple(one.rank for one in finished.values())
        if not modules:
            raise MergeError("The merged change is zero in every module: there is no adapter to write.")
        entries = list(entries_of(finished, {step.name: merged[step.name] for step in plan.whole}))
        require_space(partial, sum(entry.source.nbytes for entry in entries))
        size = write_weights(partial, entries, reader, lambda count: meter(WEIGHTS_NAME, written=count))
    write_side_files(plan, partial, out, modules, hashes)
    for name in (_MERGED, _SCRATCH):
        (partial / name).unlink(missing_ok=True)
    if options.verify:
        verify(plan, partial, finished)
    idle = tuple(
        f"{reference} changes nothing wherever it is merged."
        for reference in inputs_without_effect(work.plan, work.registry)
    )
    left_out = tuple(one.joined.name for one in plan.makings if one.joined.name not in finished)
    done = meter.read, meter.written
    return AdapterMerge(out, plan, 0.0, *done, hashes, idle, modules=modules, left_out=left_out, nbytes=size)


def _merge_cores(
    plan: AdapterPlan,
    partial: Path,
    options: Work,
    files: tuple[FileReader, FileWriter, Journal],
    meter: Meter,
) -> engine.Work:
    """Let the engine merge what methods have a part in: cores, biases of B, tensors saved whole."""
    steps = [one.step for one in plan.makings if one.how == "core"] + [*plan.biases.values(), *plan.whole]
    laid, placed = lay_out(steps, 1 << 62)
    inner: Plan = replace(plan, placed=placed, files=tuple(replace(file, name=_MERGED) for file in laid))
    chosen = device_named(options.device)
    workers = fit_threads(inner, chosen, options.threads, options.memory)
    keep = room_to_keep(inner, workers, options.memory, chosen)
    reader, writer, journal = files
    require_space(partial, laid[0].size)
    writer.create(str(partial / _MERGED), laid[0].size)
    work = engine.Work(
        inner, partial, chosen, workers, reader, writer, journal, Registry(), meter, options.allow_nonfinite, keep
    )
    work.run()
    odd = sorted(name for name in work.differing if name.endswith(BASE_LAYER))
    if odd:
        raise MergeError(
            f"{odd[0]} is not the same in all adapters (or in the base): they change other weights. Merge models "
            "(base+adapter) into a model, and take `plait extract` of that."
        )
    return work


def _merged_tensors(plan: Plan, partial: Path) -> dict[str, StoredTensor]:
    """Say where each merged tensor lies."""
    return {
        place.step.name: StoredTensor(
            place.step.name, place.step.dtype, place.step.shape, str(partial / _MERGED), place.offset
        )
        for place in plan.placed
    }


def _hashes(plan: AdapterPlan, reader: FileReader, read: Registry) -> dict[str, str]:
    """Hash every tensor of every adapter, and what was read of the base; by "model: tensor"."""
    registry, hashes = Registry(), {}
    streams = Streams(registry)
    for model, reference in ((model, model.reference) for model in plan.models if _is_adapter(plan, model.reference)):
        for tensor in open_adapter(str(model.path)).tensors.values():
            raw = np.empty(tensor.nbytes, np.uint8)
            reader.read_elements(tensor, 0, raw)
            streams.feed(tensor, 0, raw)
            hashes[f"{reference}: {tensor.name}"] = registry.tensor(tensor) or ""
    for step in plan.whole:
        for source in step.inputs:
            key = f"{plan.models[source.model].reference}: {source.name}"
            digest = read.tensor(source.tensor) if source.tensor is not None else None
            if digest is not None and not _is_adapter(plan, plan.models[source.model].reference):
                hashes.setdefault(key, digest)
    return dict(sorted(hashes.items()))


def _is_adapter(plan: AdapterPlan, reference: str) -> bool:
    return any(reference == one for one in plan.adapters)


def _finish(
    plan: AdapterPlan,
    partial: Path,
    merged: Mapping[str, StoredTensor],
    limits: tuple[int, int],
    reader: FileReader,
    writer: FileWriter,
    meter: Meter,
) -> dict[str, Finished]:
    """Make the factors of every module; in natural order, without those that change nothing."""
    scratch = Scratch(str(partial / _SCRATCH), plan.factors, writer)
    writer.create(scratch.path, 0)
    finished: dict[str, Finished] = {}

    def finish(making: Making) -> None:
        joined = making.joined
        made = _made(plan, making, merged, reader)
        bias = _bias(plan, making, merged, reader)
        if not made.rank and bias is not None and bias.any():
            wide = made.down.shape[1]
            made = Made(np.zeros((joined.outputs, 1)), np.zeros((1, wide)), 0.0)  # peft has no bias without factors
        if made.rank:
            finished[joined.name] = Finished.of(joined, made, bias, scratch)
        text = f"rank {made.rank}, error {made.error:.3g}" if made.rank else "no change"
        meter(f"{joined.name}: {text}")

    run_on_threads(plan.makings, lambda: finish, _workers(plan.makings, *limits), threading.Event())
    return {name: finished[name] for name in sorted(finished, key=natural_key)}


def _workers(makings: Iterable[Making], threads: int, memory: int) -> int:
    largest = max(
        8 * _HELD * one.joined.total * (one.joined.outputs + one.joined.parts[0].down.size // one.joined.parts[0].rank)
        for one in makings
    )
    return max(1, min(threads, memory // largest))


def _made(plan: AdapterPlan, making: Making, merged: Mapping[str, StoredTensor], reader: FileReader) -> Made:
    joined, spec = making.joined, plan.spec
    if making.how == "beside":
        return beside(reader, joined, making.shares)
    if making.how == "clusters":
        rng = np.random.Generator(np.random.Philox(key=rng_key(plan.seed, joined.name, "clusters")))
        return clustered(reader, joined, making.shares, spec.clusters or 1, rng)
    space = space_of(reader, joined)
    if making.how == "sum":
        counts = np.array([making.shares.get(part.model, 0.0) for part in joined.parts])
        core = np.tensordot(counts, space.cores, 1)
    else:
        core = read_values(reader, merged[joined.weight]).reshape(joined.core)
    return best(space, core, None if spec.exact else Wanted(spec.rank, spec.energy, spec.error))


def _bias(plan: AdapterPlan, making: Making, merged: Mapping[str, StoredTensor], reader: FileReader) -> Matrix | None:
    """The merged bias of B: zeros where other modules have one, for peft wants it everywhere."""
    if making.joined.embedding or not plan.settings.lora_bias:
        return None
    step: Step | None = plan.biases.get(making.joined.name)
    return np.zeros(making.joined.outputs) if step is None else read_values(reader, merged[step.name])
