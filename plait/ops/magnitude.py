"""Exact selection by magnitude: floats without their sign are ordered as their bits are.

The k-th largest magnitude of a tensor that comes in tiles takes two passes of counting. First
`histogram_high` over the upper 15 bits tells in which bin it lies; then `histogram_low` over the lower 16
bits of that bin's elements tells which it is. Where a sample has told the neighbourhood beforehand, one
pass of `window_count` does.

All counts are int64, added to, and may be shared by tiles in turn (not by threads at once). float32 only:
a float64 tensor is selected from whole, by `kth_magnitude`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from plait.ops.sides import Array, side

__all__ = [
    "HIGH",
    "LOW",
    "histogram_high",
    "histogram_low",
    "kth_magnitude",
    "magnitude_bits",
    "magnitude_of",
    "ordered_bits",
    "window_count",
]

HIGH = 1 << 15  # bins of `histogram_high`
LOW = 1 << 16  # bins of `histogram_low`


def magnitude_bits(x: Array) -> Array:
    """Return the bits of |x| as int32, in x's shape: larger magnitude, larger number.

    >>> magnitude_bits(np.array([-1.0, 1.0, 0.0], np.float32)).tolist()
    [1065353216, 1065353216, 0]
    """
    return side(x).magnitude_bits(x)


def magnitude_of(bits: int) -> float:
    """Return the magnitude that `magnitude_bits` gave these bits.

    >>> magnitude_of(1065353216)
    1.0
    """
    return float(np.int32(bits).view(np.float32))


def ordered_bits(x: Array) -> Array:
    """Return int32 numbers, in x's shape, that are ordered as the entries of x are, signs included; -0 is just below 0.

    >>> ordered_bits(np.array([-1.0, -0.0, 0.0, 1.0], np.float32)).tolist()
    [-1065353217, -1, 0, 1065353216]
    """
    return side(x).ordered_bits(x)


def histogram_high(x: Array, counts: Array) -> None:
    """Add to `counts` (int64 `[32768]`) how many of x have each value of `magnitude_bits(x) >> 16`.

    >>> counts = np.zeros(HIGH, np.int64)
    >>> histogram_high(np.array([-1.0, 1.0, 0.0], np.float32), counts)
    >>> np.flatnonzero(counts).tolist(), counts[[0, 16256]].tolist()
    ([0, 16256], [1, 2])
    """
    _check_counts(counts, HIGH)
    side(x).histogram_high(x, counts)


def histogram_low(x: Array, high: int, counts: Array) -> None:
    """Add to `counts` (int64 `[65536]`) the lower 16 bits of those whose `magnitude_bits(x) >> 16` is `high`.

    >>> counts = np.zeros(LOW, np.int64)
    >>> histogram_low(np.array([-1.0, 1.0, 0.0], np.float32), 16256, counts)
    >>> int(counts[0]), int(counts.sum())
    (2, 2)
    """
    _check_counts(counts, LOW)
    side(x).histogram_low(x, high, counts)


def window_count(x: Array, low_bits: int, counts: Array) -> int:
    """Count around a guess: return how many magnitude bits reach `low_bits + len(counts)`.

    Those in [low_bits, low_bits + len(counts)) add 1 to `counts[bits - low_bits]`.

    >>> counts = np.zeros(4, np.int64)
    >>> window_count(np.array([-1.0, 2.0, 0.0], np.float32), 1065353215, counts), counts.tolist()
    (1, [0, 1, 0, 0])
    """
    _check_counts(counts, len(counts))
    return int(side(x).window_count(x, low_bits, counts))


def kth_magnitude(x: Array, rank: int) -> float:
    """Return the `rank`-th largest magnitude of a whole tensor; rank 1 is the largest.

    float32 by two histograms; float64 by sorting in part (numpy) or by topk (torch), which copies.

    Raises:
        ValueError: a rank outside 1 … number of elements.

    >>> kth_magnitude(np.array([-3.0, 1.0, 2.0], np.float32), 2)
    2.0
    """
    size = int(np.prod(x.shape))
    if not 1 <= rank <= size:
        raise ValueError(f"the rank among {size} magnitudes is 1 to {size}, not {rank}")
    if x.dtype.itemsize == 8:
        return _kth_of_float64(x, rank)
    zeros = np.zeros if isinstance(x, np.ndarray) else _torch_zeros(x)
    counts = zeros(HIGH, np.int64)
    histogram_high(x, counts)
    high, rest = _bin_of(counts, rank)
    counts = zeros(LOW, np.int64)
    histogram_low(x, high, counts)
    return magnitude_of(high << 16 | _bin_of(counts, rest)[0])


def _bin_of(counts: Array, rank: int) -> tuple[int, int]:
    """Find the bin of the `rank`-th counted from the top, and its rank within the bin."""
    above = np.asarray(counts.tolist(), np.int64)[::-1].cumsum()
    place = int(np.searchsorted(above, rank))
    before = int(above[place - 1]) if place else 0
    return len(above) - 1 - place, rank - before


def _kth_of_float64(x: Array, rank: int) -> float:
    if isinstance(x, np.ndarray):
        place = x.size - rank
        return float(np.partition(np.abs(x.reshape(-1)), place)[place])
    return float(x.detach().abs().reshape(-1).topk(rank).values[-1])


def _torch_zeros(x: Any) -> Any:
    return lambda size, _dtype: x.new_zeros(size).long()


def _check_counts(counts: Array, size: int) -> None:
    if str(counts.dtype).removeprefix("torch.") != "int64" or tuple(counts.shape) != (size,):
        raise ValueError(f"these counts are int64 [{size}], not {counts.dtype} {list(counts.shape)}")
