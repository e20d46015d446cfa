"""The magnitude that a given fraction of the entries reaches: exact, mostly in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np

from plait.methods.measures.measure import host
from plait.methods.measures.seen import Of, Seen, one_each, reading
from plait.methods.vocabulary import Array, Measured
from plait.ops import Rng
from plait.ops.fusing import Grid, histogram_of_grid, window_of_grid
from plait.ops.magnitude import HIGH, LOW, histogram_high, histogram_low, magnitude_bits, window_count

__all__ = ["MagnitudeThreshold", "Threshold", "magnitude_threshold"]

_SMALL = 1 << 16
_NARROW, _WIDE = 1 << 12, 1 << 20  # bit patterns that a window may span
_COUNTERS = 1 << 22  # for all models together, more or less
_SHIFT = (
    6  # up to 2^6 bit patterns share a counter, where a window is wide: of bfloat16 numbers few differ by so little
)
_RUN = 1 << 10  # counters that are first added up together, where the threshold is looked for
_SIGMAS = 4.5  # how far, in standard errors of the sample's quantile, a window reaches to each side: few are missed


class MagnitudeThreshold:
    """The magnitude at which a fraction `density` of each model's entries is at least as large: `[k]`.

    Exact: the k-th largest of `size` magnitudes with k = max(1, floor(density * size)). A sample says where
    to look; one pass counts what lies above and tabulates bit patterns inside a narrow window. Should the sample have
    misled, two more passes over a histogram of all bit patterns find the value.
    """

    def __init__(self, density: np.ndarray[Any, Any], size: int, seen: Seen | None = None, models: int = 1) -> None:
        """Rank the stack's own entries, or what is `seen` in their place: one density for each row of it.

        All rows together may take as much memory for counters as so many `models`; there are fewer counters than entries,
        as to clear and search them would take longer than another pass.
        """
        self.density, self.size, self.seen = density, size, seen or Seen(_itself, {})
        rows = max(1, len(density))
        self.widest = max(_NARROW, min(size // 4, min(_COUNTERS, max(models, rows) * _WIDE) // rows))
        self.rank = [max(1, math.floor(d * size)) for d in density.tolist()]
        self.open = [i for i, d in enumerate(density.tolist()) if 0 < d < 1 and size > 0]
        self.found = np.where(density <= 0, np.inf, 0.0)
        self.stage = "all" if size <= _SMALL else "window"
        self.wide = False
        self.width, self.shift = _NARROW, 0
        self.start_bits: dict[int, int] = dict.fromkeys(self.open, 0)
        self._reset()

    def _reset(self) -> None:
        self.kept: dict[int, list[Any]] = {i: [] for i in self.open}
        self.above, self.loose = np.zeros((2, len(self.rank)), np.int64)
        """Of bit patterns that were counted together: in which bits they may differ."""
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
        shown = self._shown(sample)
        if shown is None or _itemsize(shown) == 8:
            self.stage = "high" if shown is None else "all"
            return
        spans = {}
        for i in self.open:
            bits = np.ascontiguousarray(host(shown[i])).reshape(-1).view(np.int32) & 0x7FFFFFFF  # without Numba
            kept, last = float(self.density[i]), len(bits) - 1
            reach = _SIGMAS * math.sqrt(kept * (1 - kept) / len(bits)) + 2 / len(bits)
            low, high = (min(last, max(0, round((1 - kept + side) * last))) for side in (-reach, reach))
            around = np.partition(bits, sorted({low, high}))
            spans[i] = int(around[low]), int(around[high])
        width = max((high - low for low, high in spans.values()), default=0) + 2
        self.shift = next((shift for shift in range(_SHIFT + 1) if width >> shift <= self.widest), _SHIFT + 1)
        if self.shift > _SHIFT:  # as where few entries lie between many small and some large
            self.stage, self.shift = "high", 0
            return
        self.width = min(self.widest, max(_NARROW, -(-(width >> self.shift) // _RUN) * _RUN + _RUN * (self.shift > 0)))
        for i, (low, high) in spans.items():
            start = max(0, (low + high) // 2 - (self.width << self.shift) // 2)
            self.start_bits[i] = start >> self.shift << self.shift

    def _shown(self, sample: Array) -> Array | None:
        """Return what is seen in the place of the sample; None where that takes whole rows or tensors."""
        try:
            return self.seen.rows(sample, Rng(np.zeros(len(sample), np.uint64)))
        except Exception:  # noqa: BLE001 - a method's own function may need its tensor's shape
            return None

    def fork(self) -> MagnitudeThreshold:
        """Return an empty copy at the same stage."""
        other = object.__new__(MagnitudeThreshold)
        other.__dict__.update(self.__dict__)
        other._reset()
        return other

    def enter(self, parameters: Mapping[str, Any]) -> None:
        """Look with this tensor's numbers."""
        self.seen = self.seen.with_numbers(parameters if self.seen.parameters else {})

    def update(self, stack: Array, start: int, rng: Any) -> None:  # noqa: ARG002 - the protocol's arguments
        """Count one tile's magnitudes."""
        self._count(self.seen.rows(stack, rng))

    def _count(self, rows: Array) -> None:
        if len(rows) != len(self.rank):
            raise ValueError(f"{len(rows)} rows are measured, where one entry a model made {len(self.rank)}")
        flat = rows.reshape(len(rows), -1)
        if self.stage == "all":
            for i in self.open:
                self.kept[i].append(np.abs(host(flat[i])))
            return
        if _itemsize(flat) == 8:
            self.wide = True  # histograms are of float32's bits: this pass is lost, and the next keeps everything
            return
        counts = self._counters(flat)
        for i in self.open:
            if self.stage == "window":
                self._count_in_window(i, flat[i], counts[i])
            elif self.stage == "high":
                histogram_high(flat[i], counts[i])
            else:
                histogram_low(flat[i], self.start_bits[i] >> 16, counts[i])

    def _count_in_window(self, i: int, entries: Array, counts: Any) -> None:
        if self.shift:
            bits = magnitude_bits(entries)
            self.loose[i] |= int(((bits & (1 << self.shift) - 1) != 0).any())
            coarse = bits >> self.shift  # in the same order
            entries = coarse.view(np.float32) if isinstance(coarse, np.ndarray) else coarse.view(entries.dtype)
        self.above[i] += window_count(entries, self.start_bits[i] >> self.shift, counts)

    def _counters(self, like: Any) -> Any:
        """Return this pass's counters, made where the stack lives."""
        if self.counts is None:
            shape = len(self.rank), {"window": self.width, "high": HIGH, "low": LOW}[self.stage]
            self.counts = np.zeros(shape, np.int64) if isinstance(like, np.ndarray) else like.new_zeros(shape).long()
        return self.counts

    def update_grid(self, grid: Grid, code: str, start: int, rng: Any, *, has_base: bool) -> list[bool] | None:
        """Count a batch's magnitudes, where what is seen can be written as a loop."""
        if self.stage == "all":
            rows = self.seen.in_one_call(grid, code, start, rng, has_base=has_base)
            if rows is not None:
                self._count(rows)
            return None if rows is None else [True] * len(grid)
        program = self.seen.program(len(grid) - has_base, rng)
        if program is None or len(program.results) != len(self.rank):
            return None
        counts = self._counters(grid)
        if self.stage == "window":
            tables = self._each(lambda i: self.start_bits[i], -1), counts, self.above, self.loose
            done = window_of_grid(program, grid, code, start, *tables, has_base=has_base, shift=self.shift)
        else:
            high = self._each(lambda i: -1 if self.stage == "high" else self.start_bits[i] >> 16, -2)
            done = histogram_of_grid(program, grid, code, start, high, counts, has_base=has_base)
        return [True] * len(grid) if done else None

    def _each(self, number: Callable[[int], int], settled: int) -> np.ndarray[Any, Any]:
        return np.array([number(i) if i in self.open else settled for i in range(len(self.rank))], np.int64)

    def join(self, other: MagnitudeThreshold) -> None:
        """Add a fork's counts."""
        self.wide = self.wide or other.wide
        self.above += other.above
        self.loose |= other.loose
        for i in self.open:
            self.kept[i] += other.kept[i]
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
            if not all(self.loose[i] for i in self.open):
                self.stage = "high"
            self.shift, self.width = 0, _NARROW  # where it is between patterns that were counted together
            self._reset()
        return bool(self.open)

    def _settled(self, i: int) -> bool:
        """Find the threshold in the window, if it is there; `loose` stays set where that tells its neighbours, too."""
        position = _position(host(self.counts[i]), self.rank[i] - int(self.above[i]))
        if position is None:
            self.loose[i] = 0
            return False
        self.start_bits[i] += position << self.shift
        if self.loose[i]:
            return False
        self.found[i] = np.array([self.start_bits[i]], np.int32).view(np.float32)[0]
        return True

    def _narrow(self, i: int) -> None:
        """Choose the histogram bin that holds the threshold, and note how many lie above it."""
        counts = host(self.counts[i])
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
    run = _RUN
    padded = np.pad(counts, (-len(counts) % run, 0)) if len(counts) % run else counts
    runs = padded.reshape(-1, run)
    above = np.cumsum(runs.sum(axis=1)[::-1])
    if above[-1] < rank:
        return None
    place = int(np.searchsorted(above, rank))
    left = rank - (int(above[place - 1]) if place else 0)
    row = len(runs) - 1 - place
    within = run - 1 - int(np.searchsorted(np.cumsum(runs[row][::-1]), left))
    return row * run + within - (len(padded) - len(counts))


def _itself(stack: Array, *_: Any) -> Array:
    return stack


def _itemsize(array: Any) -> int:
    return int(array.dtype.itemsize)


def magnitude_threshold(
    of: Of | None = None,
    keep: Callable[[Mapping[str, Any]], Any] = lambda p: p["density"],
    *,
    scoped: bool = True,
    reads: tuple[str, ...] | None = None,
    uses: tuple[str, ...] | None = None,
) -> Measured:
    """Declare a MagnitudeThreshold of `of(stack, p, rng)`, or of the stack itself. -> `[k]`, or `[1]` of one array.

    `keep(p)` is the fraction whose magnitude reaches the threshold, one for all or one for each row of what is
    measured; where it is 0 the threshold is infinite, where it is 1 it is 0. For `reads` and `uses` see `summed`; without `of`
    nothing but `keep` matters.
    """

    def make(parameters: Mapping[str, Any], k: int, size: int) -> MagnitudeThreshold:
        seen = None if of is None else Seen(of, parameters)
        rows = k if seen is None else seen.count(k)
        return MagnitudeThreshold(one_each(keep(parameters), rows), size, seen, k)

    depends = keep if of is None and reads is None else reading(reads)
    return Measured(make, scoped, depends, uses, counts=True)


Threshold = Annotated[Array, magnitude_threshold(uses=())]
