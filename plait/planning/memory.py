"""How much memory a plan needs, and how many threads fit the limit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from plait.checkpoint.needs import made_bytes
from plait.dtypes import DTYPES
from plait.errors import ArgumentError
from plait.methods import find_method
from plait.methods.measures import SAMPLE
from plait.planning.totals import passes
from plait.planning.types import Plan, Step

__all__ = ["BATCH", "HELD", "TILE", "Geometry", "fit_threads", "kept_bytes", "peak_memory", "room_to_keep"]

TILE = 1 << 15
"""Elements that are computed at a time on a CPU: what stays in a core's cache."""
BATCH = 1 << 19
"""Elements that are read and written at a time: half as many leave the caches less, but twice as much to be said in Python."""
HELD = 1 << 25
"""Bytes that ops may hold of a tensor's tiles from measuring to making."""
_MOST_BLOCKS = 1 << 16  # sums of blocks that are held before they are added up
_MOST_KEPT = 1 << 27  # bytes: beyond that, reading from the system's cache again costs no more than fresh memory


class Geometry(Protocol):
    """How a device cuts tensors."""

    @property
    def tile(self) -> int:
        """Elements computed at a time."""

    @property
    def batch(self) -> int:
        """Elements read and written at a time."""


@dataclass(frozen=True, slots=True)
class _Cpu:
    tile: int = TILE
    batch: int = BATCH


def _tile_bytes(step: Step, device: Geometry) -> int:
    """Bytes that one thread holds while it makes the step: raw batches, float tiles, and what ops put beside them."""
    locality = _locality(step)
    whole = locality == "matrix"
    columns = step.shape[-1] if locality == "row" and step.shape else 1
    batch = step.size if whole else min(step.size, max(device.batch, columns))
    tile = step.size if whole else min(step.size, max(device.tile, columns))
    sizes = [DTYPES[source.dtype].size for source in step.inputs]
    raw = sum(sizes) + 2 * DTYPES[step.dtype].size
    if len({source.dtype for source in step.inputs}) > 1:
        raw += 4 * len(sizes)  # they are widened to float32
    if 4 in sizes and DTYPES[step.dtype].size < 4:
        raw += 4  # what is merged in float32 is rounded afterwards
    floats = (2 * len(step.sources) + 4) * (8 if step.dtype == "F64" else 4)
    if whole:
        floats *= 3  # matrix methods may work in float64 beside the stack
    inner = max((_tile_bytes(source.step, device) for source in step.inputs if source.step), default=0)
    making = sum(made_bytes(source.tensor, batch)[0] for source in step.inputs if source.tensor is not None)
    return batch * raw + tile * floats + inner + making


def kept_bytes(steps: Iterable[Step]) -> int:
    """Bytes that a thread keeps of what it makes tensors from, so that it has them for the next tile of any step."""
    return max((_kept_of(step) for step in steps), default=0)


def _kept_of(step: Step) -> int:
    stored = sum(made_bytes(source.tensor, step.size)[1] for source in step.inputs if source.tensor is not None)
    return stored + sum(_kept_of(source.step) for source in step.inputs if source.step is not None)


def _locality(step: Step) -> str:
    return find_method(step.method).chosen(step.parameters).locality if step.action == "merge" else "element"


def _measure_bytes(step: Step) -> int:
    if step.action != "merge":
        return 0
    count = len(step.sources)
    method = find_method(step.method).chosen(step.parameters)
    blocks = min(
        step.size // 4096 + 1 + (step.shape[0] if method.locality == "row" and step.shape else 0), _MOST_BLOCKS
    )
    # A threshold has a sample and a window of counters, a quantile three histograms; sums and a few numbers take little.
    counters = (
        (3 * SAMPLE * 4 + (1 << 20) * 8)
        * count
        * max(
            (
                sum(maker.measured[name].counts for name in names)
                for maker in (method, *(find_method(name, post=True) for name, _ in step.post))
                for names in maker.rounds
            ),
            default=0,
        )
    )
    seen = 4 * count * min(step.size, BATCH) if method.measured else 0  # of a batch, what a measure looks at
    drawn = count * step.size // 8 if method.locality == "row" else step.size
    held = min(HELD, drawn) if method.random else 0
    return blocks * 8 * (count * (count + 1) // 2) * 2 + counters + seen + held


def peak_memory(steps: Iterable[Step], threads: int, device: Geometry | None = None) -> int:
    """Bytes, over what the process needs anyway, that a merge of these steps may hold at once."""
    cut, steps = device or _Cpu(), list(steps)
    kept = kept_bytes(steps)  # once more for the thread that waits for the others, and draws samples before
    return kept + threads * (kept + max((_tile_bytes(step, cut) + _measure_bytes(step) for step in steps), default=0))


def fit_threads(plan: Plan, device: Geometry, threads: int, memory: int) -> int:
    """Return how many threads, at most `threads`, stay within `memory` bytes.

    Raises:
        ArgumentError: not even one does; says how much it needs.
    """
    if threads < 1:
        raise ArgumentError(f"--threads {threads}: at least one is needed.")
    one = peak_memory(plan.steps, 1, device)
    if one > memory:
        largest = max(plan.steps, key=lambda step: _tile_bytes(step, device) + _measure_bytes(step))
        raise ArgumentError(
            f"{largest.name} needs {one / 2**20:.0f} MiB at once ({largest.method or 'copy'}), more than --memory "
            f"{memory / 2**20:.0f} MiB allows. Raise --memory."
        )
    more = one - kept_bytes(plan.steps)
    return max(1, min(threads, 1 + (memory - one) // max(1, more)))


def room_to_keep(plan: Plan, threads: int, memory: int, device: Geometry) -> int:
    """Bytes that each thread may use to keep a tensor's inputs between measuring and making, within the limit.

    As much as the largest measured tensor takes whose inputs fit; larger ones are read once for each pass.
    """
    spare = min(_MOST_KEPT, (memory - peak_memory(plan.steps, threads, device)) // threads)
    sizes = (
        sum(-(-source.size * DTYPES[source.dtype].size // 64) * 64 + 64 * 64 for source in step.inputs)
        for step in plan.steps
        if passes(step) > 1 and all(source.tensor is not None for source in step.inputs)
    )
    return max((size for size in sizes if size <= spare), default=0)
