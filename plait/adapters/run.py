"""From two checkpoints to an adapter, one linear layer at a time."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from plait.adapters.arrange import Arrangement, arrange, short_targets, transposed
from plait.adapters.blas import on_one_thread
from plait.adapters.choose import Choice, Pair, choose, module_of
from plait.adapters.folder import CONFIG_NAME, WEIGHTS_NAME, Entry, adapter_config, write_text, write_weights
from plait.adapters.low_rank import Factors, Wanted, low_rank
from plait.adapters.report import Extraction, ModuleRank, card_of
from plait.adapters.values import differs, read_delta
from plait.checkpoint import Checkpoint, FileReader, FileWriter, StoredTensor, natural_key, open_checkpoint
from plait.engine.fetch import fetch_tensors
from plait.engine.folder import (
    check_output,
    make_folder,
    partial_folder,
    publish,
    removed_on_failure,
    require_space,
    sweep,
)
from plait.engine.journal import JOURNAL_NAME, Journal
from plait.engine.run import Event, Meter
from plait.engine.threads import run_on_threads
from plait.errors import CheckpointError, PlaitError
from plait.hub.library import is_hub_id
from plait.ops.rng import rng_key
from plait.recipe.references import parse_reference
from plait.recipe.types import ModelRef
from plait.structure import embedding_and_heads

__all__ = ["extract_adapter"]

_PREFIX = "base_model.model."  # peft wraps the model twice
_SCRATCH = "factors.bin"
_HELD = 3
"""A delta is held once in float32, and its image and blocks in float64 take up to twice as much again."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A linear layer whose factors lie in the scratch file."""

    rank: ModuleRank
    up: StoredTensor
    down: StoredTensor


@dataclass
class _Scratch:
    """Factors go to a file as they are made, in any order; what is held does not grow with the model."""

    path: str
    writer: FileWriter
    end: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, name: str, factor: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> StoredTensor:
        """Write one factor and tell where it lies."""
        with self.lock:
            place, self.end = self.end, self.end + factor.nbytes
        self.writer.write_at(self.path, place, np.ascontiguousarray(factor).view(np.uint8).reshape(-1))
        return StoredTensor(name, "F32", factor.shape, self.path, place)


def extract_adapter(
    base: str,
    model: str,
    out: Path,
    wanted: Wanted,
    *,
    include: str | None,
    exclude: str | None,
    save_embeddings: bool,
    base_name: str | None,
    seed: int,
    threads: int,
    memory: int,
    overwrite: bool,
    on_event: Callable[[Event], None],
) -> Extraction:
    """Make the adapter. See `plait.extract` for the arguments and errors."""
    began = time.monotonic()
    named = _named(base)
    opened = _opened(named), _opened(_named(model))
    choice = choose(*opened, include=include, exclude=exclude, save_embeddings=save_embeddings)
    check_output(out, [one.path for one in opened], overwrite=overwrite)
    _fetch(opened, on_event)
    partial = partial_folder(out)
    make_folder(partial)
    on_event(Event("start", str(out)))
    meter = Meter(on_event)
    with Journal(partial, "extract", fresh=True), removed_on_failure(partial), on_one_thread(), FileReader() as reader:
        sweep(partial, {JOURNAL_NAME})
        plan = arrange(choice, _changed(choice, reader, threads, meter))
        require_space(partial, sum(pair.model.nbytes for pair in plan.whole))
        turned = transposed(plan.linear, {name: tensor.shape for name, tensor in opened[0].tensors.items()})
        kept = _factored(plan.linear, turned, wanted, partial, reader, (seed, threads, memory), meter)
        found = _Found(*opened, choice, plan, kept, turned, base_name or (base if named.adapter else named.path))
        found = found if base_name else replace(found, revision=named.revision)
        size = _write(partial, found, reader, meter)
        (partial / _SCRATCH).unlink()
        publish(partial, out, overwrite=overwrite)
    on_event(Event("done", str(out), meter.read, meter.written))
    return _extraction(out, found, size, time.monotonic() - began)


def _named(reference: str) -> ModelRef:
    try:
        return parse_reference(reference)
    except ValueError as error:
        raise CheckpointError(f"{reference}: {error}.") from None


def _opened(named: ModelRef) -> Checkpoint:
    return open_checkpoint(
        named.path, revision=named.revision, adapter=named.adapter, adapter_revision=named.adapter_revision
    )


def _fetch(opened: tuple[Checkpoint, ...], on_event: Callable[[Event], None]) -> None:
    tensors = [tensor for one in opened for tensor in one.tensors.values()]
    fetch_tensors(tensors, lambda name, done, total: on_event(Event("download", name, fetched=done, to_fetch=total)))


@dataclass(frozen=True)
class _Found:
    """Everything that the adapter is made of."""

    base: Checkpoint
    model: Checkpoint
    choice: Choice
    plan: Arrangement
    kept: tuple[_Kept, ...]
    turned: frozenset[str]
    base_name: str
    revision: str | None = None
    """The base's, where it was named with one."""


def _changed(choice: Choice, reader: FileReader, threads: int, meter: Meter) -> set[str]:
    """Compare the tensors that would be saved whole."""
    found: set[str] = set()

    def compare(pair: Pair) -> None:
        if differs(reader, pair):
            found.add(pair.name)
        meter(pair.name, pair.base.nbytes + pair.model.nbytes)

    run_on_threads(choice.whole, lambda: compare, threads, threading.Event())
    return found


def _factored(
    pairs: Sequence[Pair],
    turned: frozenset[str],
    wanted: Wanted,
    folder: Path,
    reader: FileReader,
    limits: tuple[int, int, int],
    meter: Meter,
) -> tuple[_Kept, ...]:
    """Factor every delta that is not zero; in natural order."""
    seed, threads, memory = limits
    largest = max((4 * pair.base.size for pair in pairs), default=1) * _HELD
    kept: list[_Kept] = []
    with FileWriter() as writer:
        scratch = _Scratch(str(folder / _SCRATCH), writer)
        writer.create(scratch.path, 0)

        def factor(pair: Pair) -> None:
            delta = read_delta(reader, pair)
            if pair.name in turned:
                delta = np.ascontiguousarray(delta.T)
            rng = np.random.Generator(np.random.Philox(key=rng_key(seed, pair.name, "extract")))
            made = low_rank(delta, wanted, rng)
            text = "unchanged" if not made.rank else f"rank {made.rank}, error {made.error:.3g}"
            if made.rank:
                kept.append(_keep(pair, made, scratch))
            meter(f"{module_of(pair.name)}: {text}", pair.base.nbytes + pair.model.nbytes)

        run_on_threads(pairs, lambda: factor, max(1, min(threads, memory // largest)), threading.Event())
    return tuple(sorted(kept, key=lambda one: natural_key(one.rank.module)))


def _keep(pair: Pair, made: Factors, scratch: _Scratch) -> _Kept:
    module = module_of(pair.name)
    rows, columns = pair.base.shape
    rank = ModuleRank(module, (rows, columns), made.rank, made.error, made.norm)
    up = scratch.put(f"{_PREFIX}{module}.lora_B.weight", made.up)
    return _Kept(rank, up, scratch.put(f"{_PREFIX}{module}.lora_A.weight", made.down))


def _write(partial: Path, found: _Found, reader: FileReader, meter: Meter) -> int:
    """Write every file of the adapter; returns the size of its weights."""
    if not found.kept and not found.plan.whole and not found.plan.biases:
        raise PlaitError(
            f"{found.model.reference} has the values of {found.base.reference}: there is nothing to extract."
        )
    if not found.kept:
        raise PlaitError(
            "No matrix of a linear layer differs, and peft has no adapter of whole modules alone: "
            f"{', '.join(found.plan.modules[:4])} would be all. Include a linear layer that changed."
        )
    ranks = {one.rank.module: one.rank.rank for one in found.kept}
    entries = [Entry(one.name, one) for kept in found.kept for one in (kept.down, kept.up)]
    entries += [Entry(_PREFIX + pair.name, pair.model) for pair in found.plan.whole]
    tied = _tied(found)
    entries += [Entry(f"{_PREFIX}{module}.weight", source) for module, source in tied.items()]
    for pair in found.plan.biases:
        inner = ".base_layer.bias" if module_of(pair.name) in ranks else ".bias"
        entries.append(Entry(_PREFIX + module_of(pair.name) + inner, pair.model))
    require_space(partial, sum(entry.source.nbytes for entry in entries))
    size = write_weights(partial, entries, reader, lambda count: meter(WEIGHTS_NAME, written=count))
    saved = [module_of(name) for name in (*found.base.tensors, *found.model.tensors)]
    config = adapter_config(
        found.base_name,
        found.base.config,
        ranks,
        targets=short_targets(sorted(ranks), set(saved)),
        modules=sorted({*found.plan.modules, *tied}),
        biases=bool(found.plan.biases),
        fan_in_fan_out=any(f"{module}.weight" in found.turned for module in ranks),
        ties=bool(tied),
    )
    if found.revision:
        config["revision"] = found.revision
    write_text(partial / CONFIG_NAME, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    names = [_neutral(reference) for reference in (found.base_name, found.model.reference)]
    rows = [one.rank for one in found.kept]
    hub = found.base_name if is_hub_id(found.base_name) else None
    write_text(partial / "README.md", card_of(names[0], names[1], rows, _saved(found.plan), hub))
    return size


def _tied(found: _Found) -> dict[str, StoredTensor]:
    """Find what a head without a tensor of its own becomes: module -> the embeddings that are saved."""
    shapes = {name: tensor.shape for name, tensor in found.base.tensors.items()}
    embeddings = embedding_and_heads(shapes, found.base.config)[0]
    saved = [pair.model for pair in found.plan.whole if pair.name in embeddings]
    return {found.choice.tied: saved[0]} if found.choice.tied and saved else {}


def _neutral(reference: str) -> str:
    """Name a checkpoint without the path that it has on this machine."""
    return reference if is_hub_id(reference) else Path(os.path.normpath(reference)).name


def _saved(plan: Arrangement) -> list[str]:
    return [*plan.modules, *(pair.name for pair in plan.biases)]


def _extraction(out: Path, found: _Found, size: int, seconds: float) -> Extraction:
    plan, choice = found.plan, found.choice
    held = len(found.kept) + len(plan.whole) + len(plan.biases)
    return Extraction(
        out,
        found.base.reference,
        found.model.reference,
        tuple(one.rank for one in found.kept),
        tuple(_saved(plan)),
        len(choice.linear) + len(choice.whole) - held,
        size,
        seconds,
        choice.left_out,
    )
