"""Statistics that a method needs before its first tile: gathered tile by tile, exact, in any order.

Each measure is fed the stack of every tile, once a pass. What it returns does not depend on tiles, threads or
device: counts are integers, and sums run over fixed blocks and are then added without rounding (`math.fsum`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import numpy as np

from plait import ops
from plait.methods.vocabulary import Array, Measured
from plait.ops.magnitude import HIGH, LOW, histogram_high, histogram_low, magnitude_bits, window_count
from plait.ops.pipeline import Grid, gram_of_grid, norms_of_grid, selection_of, window_of_grid

__all__ = ["SAMPLE", "Gram", "KeptNorm", "MagnitudeThreshold", "Measure", "Threshold", "kept_norm"]

SAMPLE = 1 << 16
"""Entries a model that `prime` is shown, to guess where the threshold lies."""
_SMALL = 1 << 16
_NARROW, _WIDE = 1 << 12, 1 << 20  # bit patterns that a window may span
_COUNTERS = 1 << 22  # for all models together, more or less
_SIGMAS = 8.0  # how far, in standard errors of the sample's quantile, a window reaches to each side


class Measure(Protocol):
    """What the engine drives: optional `prime`, passes of `update` until `finish_pass` is false, then `result`."""

    def needed(self) -> bool:
        """Whether any pass is needed; when not, `result` may be called at once."""

    def wants_sample(self) -> bool:
        """Whether `prime` should be called before the first pass."""

    def prime(self, sample: Array) -> None:
        """See `[k, m]` entries drawn evenly from the whole."""

    def fork(self) -> Measure:
        """Return an empty copy for another thread to fill in this pass."""

    def update(self, stack: Array, start: int, rng: Any) -> None:
        """See one tile `[k, n]` whose first entry is entry `start` of its tensor."""

    def update_grid(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> list[bool] | None:
        """See a batch's raw elements in one call and return which rows are finite; or None, to be given tiles."""

    def join(self, other: Any) -> None:
        """Add what a fork has seen."""

    def finish_pass(self) -> bool:
        """End a pass; true when another is needed."""

    def result(self) -> Array:
        """Return what was measured, `[k]` float64 (the Gram matrix: `[k, k]`)."""


def _host(values: Any) -> np.ndarray[Any, Any]:
    return values if isinstance(values, np.ndarray) else np.asarray(values.detach().cpu().numpy())


@dataclass
class Gram:
    """All dot products of the inputs: `[k, k]` float64."""

    k: int
    blocks: list[np.ndarray[Any, Any]] = field(default_factory=list)

    def needed(self) -> bool:
        """Return true."""
        return True

    def wants_sample(self) -> bool:
        """Return false."""
        return False

    def prime(self, sample: Array) -> None:
        """Do nothing."""

    def fork(self) -> Gram:
        """Return an empty Gram matrix."""
        return Gram(self.k)

    def update(self, stack: Array, start: int, rng: Any) -> None:  # noqa: ARG002 - the protocol's arguments
        """Add the tile's blocks."""
        self.blocks.append(_host(ops.gram_blocks(stack, start)).copy())  # it lies in the tile's memory

    def update_grid(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> list[bool] | None:  # noqa: ARG002
        """Add a batch's blocks."""
        blocks, finite = gram_of_grid(grid, code, has_base=has_base)
        self.blocks.append(blocks)
        return finite

    def join(self, other: Gram) -> None:
        """Take over the other's blocks."""
        self.blocks += other.blocks

    def finish_pass(self) -> bool:
        """One pass does."""
        return False

    def result(self) -> Array:
        """Add the blocks up, exactly."""
        sums = _column_sums(self.blocks, self.k * (self.k + 1) // 2)
        gram = np.zeros((self.k, self.k))
        gram[np.triu_indices(self.k)] = sums
        return gram + np.triu(gram, 1).T


def _column_sums(blocks: list[np.ndarray[Any, Any]], columns: int) -> list[float]:
    if not blocks:
        return [0.0] * columns
    return [math.fsum(column) for column in np.concatenate(blocks).T.tolist()]


class MagnitudeThreshold:
    """The magnitude at which a fraction `density` of each model's entries is at least as large: `[k]`.

    Exact: the k-th largest of `size` magnitudes with k = max(1, floor(density * size)). A sample says where
    to look; one pass counts what lies above and tabulates bit patterns inside a narrow window. Should the sample have
    misled, two more passes over a histogram of all bit patterns find the value.
    """

    def __init__(self, density: np.ndarray[Any, Any], size: int) -> None:
        self.density, self.size = density, size
        self.rank = [max(1, math.floor(d * size)) for d in density.tolist()]
        self.open = [i for i, d in enumerate(density.tolist()) if 0 < d < 1 and size > 0]
        self.found = np.where(density <= 0, np.inf, 0.0)
        self.stage = "all" if size <= _SMALL else "window"
        self.wide = False
        self.width = _WIDE
        self.start_bits: dict[int, int] = dict.fromkeys(self.open, 0)
        self._reset()

    def _reset(self) -> None:
        self.kept: dict[int, list[Any]] = {i: [] for i in self.open}
        self.above = dict.fromkeys(self.open, 0)
        self.counts: Any = None
        """`[k, width]`, where the stack lives."""

    def needed(self) -> bool:
        """Whether some density lies strictly between 0 and 1."""
        return bool(self.open)

    def wants_sample(self) -> bool:
        """Whether a sample helps: for anything large."""
        return self.stage == "window"

    def prime(self, sample: Array) -> None:
        """Lay each window over the sample's quantile and its error to both sides."""
        if _itemsize(sample) == 8:
            self.stage = "all"
            return
        spans = {}
        for i in self.open:
            bits = _host(magnitude_bits(sample[i])).reshape(-1)
            kept, last = float(self.density[i]), len(bits) - 1
            reach = _SIGMAS * math.sqrt(kept * (1 - kept) / len(bits)) + 2 / len(bits)
            low, high = (min(last, max(0, round((1 - kept + side) * last))) for side in (-reach, reach))
            around = np.partition(bits, sorted({low, high}))
            spans[i] = int(around[low]), int(around[high])
        width = max((high - low for low, high in spans.values()), default=0) + 2
        most = min(_WIDE, max(_NARROW, _COUNTERS // max(1, len(self.rank))))
        self.width = min(most, max(_NARROW, width))
        for i, (low, high) in spans.items():
            self.start_bits[i] = max(0, (low + high) // 2 - self.width // 2)

    def fork(self) -> MagnitudeThreshold:
        """Return an empty copy at the same stage."""
        other = object.__new__(MagnitudeThreshold)
        other.__dict__.update(self.__dict__)
        other._reset()
        return other

    def update(self, stack: Array, start: int, rng: Any) -> None:  # noqa: ARG002 - the protocol's arguments
        """Count one tile's magnitudes."""
        flat = stack.reshape(stack.shape[0], -1)
        if self.stage == "all":
            for i in self.open:
                self.kept[i].append(np.abs(_host(flat[i])))
            return
        if _itemsize(flat) == 8:
            self.wide = True  # histograms are of float32's bits: this pass is lost, and the next keeps everything
            return
        counts = self._counters(flat)
        for i in self.open:
            if self.stage == "window":
                self.above[i] += window_count(flat[i], self.start_bits[i], counts[i])
            elif self.stage == "high":
                histogram_high(flat[i], counts[i])
            else:
                histogram_low(flat[i], self.start_bits[i] >> 16, counts[i])

    def _counters(self, like: Any) -> Any:
        """Return this pass's counters, made where the stack lives."""
        if self.counts is None:
            shape = len(self.rank), {"window": self.width, "high": HIGH, "low": LOW}[self.stage]
            self.counts = np.zeros(shape, np.int64) if isinstance(like, np.ndarray) else like.new_zeros(shape).long()
        return self.counts

    def update_grid(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> list[bool] | None:  # noqa: ARG002
        """Count a batch's magnitudes, where a window is being looked at."""
        if self.stage != "window":
            return None
        low_bits = np.array([self.start_bits[i] if i in self.open else -1 for i in range(len(self.rank))], np.int64)
        above = np.zeros(len(self.rank), np.int64)
        finite = window_of_grid(grid, code, low_bits, self._counters(grid), above, has_base=has_base)
        for i in self.open:
            self.above[i] += int(above[i])
        return finite

    def join(self, other: MagnitudeThreshold) -> None:
        """Add a fork's counts."""
        self.wide = self.wide or other.wide
        for i in self.open:
            self.kept[i] += other.kept[i]
            self.above[i] += other.above[i]
        if other.counts is not None:
            self.counts = other.counts if self.counts is None else self.counts + other.counts

    def finish_pass(self) -> bool:
        """Settle the models whose threshold is known now; true when some are not."""
        if self.wide:
            self.stage, self.wide = "all", False
            self._reset()
        elif self.stage == "all":
            for i in self.open:
                magnitudes = np.concatenate(self.kept[i])
                self.found[i] = np.partition(magnitudes, len(magnitudes) - self.rank[i])[-self.rank[i]]
            self.open = []
        elif self.stage == "high":
            for i in self.open:
                self._narrow(i)
            self.stage = "low"
            self._reset()
        else:
            self.open = [i for i in self.open if not self._settled(i)]
            self.stage = "high"
            self._reset()
        return bool(self.open)

    def _settled(self, i: int) -> bool:
        """Find the threshold in the window, if it is there."""
        position = _position(_host(self.counts[i]), self.rank[i] - self.above[i])
        if position is None:
            return False
        self.found[i] = np.array([self.start_bits[i] + position], np.int32).view(np.float32)[0]
        return True

    def _narrow(self, i: int) -> None:
        """Choose the histogram bin that holds the threshold, and note how many lie above it."""
        counts = _host(self.counts[i])
        position = _position(counts, self.rank[i])
        if position is None:
            raise AssertionError("the histogram has every entry")
        self.rank[i] -= int(counts[position + 1 :].sum())
        self.start_bits[i] = position << 16

    def result(self) -> Array:
        """Return the thresholds; 0 keeps everything, infinity nothing."""
        return self.found


def _position(counts: np.ndarray[Any, Any], rank: int) -> int | None:
    """Return the bin in which the rank-th largest entry lies, counting from the top, or None when in none."""
    if rank < 1:
        return None
    run = 1 << 10
    padded = np.pad(counts, (-len(counts) % run, 0))
    runs = padded.reshape(-1, run)
    above = np.cumsum(runs.sum(axis=1)[::-1])
    if above[-1] < rank:
        return None
    place = int(np.searchsorted(above, rank))
    left = rank - (int(above[place - 1]) if place else 0)
    row = len(runs) - 1 - place
    within = run - 1 - int(np.searchsorted(np.cumsum(runs[row][::-1]), left))
    return row * run + within - (len(padded) - len(counts))


def _itemsize(array: Any) -> int:
    return int(array.dtype.itemsize)


class KeptNorm:
    """How much each model's L1 norm shrank: the norm of the delta over the norm of what was kept of it, `[k]`.

    1 where nothing was kept or nothing was there.
    """

    def __init__(self, k: int, keep: Callable[[Array, Any], Array], needed: bool) -> None:
        self.k, self.keep, self._needed = k, keep, needed
        self.before: list[np.ndarray[Any, Any]] = []
        self.after: list[np.ndarray[Any, Any]] = []

    def needed(self) -> bool:
        """Whether the recipe asks to restore the norm."""
        return self._needed

    def wants_sample(self) -> bool:
        """Return false."""
        return False

    def prime(self, sample: Array) -> None:
        """Do nothing."""

    def fork(self) -> KeptNorm:
        """Return an empty copy."""
        return KeptNorm(self.k, self.keep, self._needed)

    def update(self, stack: Array, start: int, rng: Any) -> None:  # noqa: ARG002 - the protocol's arguments
        """Add one tile's magnitudes, before and after."""
        self.before.append(_host(ops.abs_sum_blocks(stack)).copy())  # they lie in the tile's memory
        self.after.append(_host(ops.abs_sum_blocks(self.keep(stack, rng))).copy())

    def update_grid(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> list[bool] | None:
        """Add a batch's magnitudes, where what is kept is trimmed or dropped."""
        selection = selection_of(lambda stack: self.keep(stack, rng), self.k, start)
        if selection is None:
            return None
        before, after, finite = norms_of_grid(selection, grid, code, start, has_base=has_base)
        self.before.append(before)
        self.after.append(after)
        return finite

    def join(self, other: KeptNorm) -> None:
        """Take over a fork's blocks."""
        self.before += other.before
        self.after += other.after

    def finish_pass(self) -> bool:
        """One pass does."""
        return False

    def result(self) -> Array:
        """Return the ratios."""
        pairs = zip(_column_sums(self.before, self.k), _column_sums(self.after, self.k), strict=True)
        return np.array([before / after if after > 0 else 1.0 for before, after in pairs])


def _threshold(parameters: Mapping[str, Any], k: int, size: int) -> MagnitudeThreshold:
    return MagnitudeThreshold(np.broadcast_to(np.asarray(parameters["density"], np.float64).reshape(-1), (k,)), size)


Threshold = Annotated[Array, Measured(_threshold, scoped=True)]


def kept_norm(keep: Callable[[Array, Mapping[str, Any], Any], Array]) -> Measured:
    """Declare a KeptNorm for methods with `rescale`; `keep(deltas, parameters, rng)` is what the method keeps."""

    def make(parameters: Mapping[str, Any], k: int, size: int) -> KeptNorm:  # noqa: ARG001 - a measure's signature
        density = np.asarray(parameters["density"])
        wanted = parameters["rescale"] == "l1" and bool((density < 1).any())
        return KeptNorm(k, lambda stack, rng: keep(stack, parameters, rng), wanted)

    return Measured(make)
