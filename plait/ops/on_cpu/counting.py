"""Counting magnitudes by their bits, for loops that have a piece of them in the first-level cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from plait.ops.on_cpu.jit import bits_of, kernel
from plait.ops.on_cpu.lanes import ones_in, trailing_zeros, window_masks

__all__ = ["count_all", "count_window"]

i64 = np.int64
u32 = np.uint32


@kernel
def count_window(x: Any, first: Any, shift: Any, one: Any, counts: Any) -> Any:
    """Add `one` where in the window each magnitude lies, sixteen at a time as few lie there.

    Each counter has 2^shift bit patterns. Return how many lie above, and which of the lower bits some has within.
    """
    above, loose = i64(0), u32(0)
    width = u32(u32(counts.size) << shift)
    whole = x.size - x.size % 16
    for j in range(0, whole, 16):
        both = window_masks(x, j, first, width)
        above += ones_in(u32(both >> u32(16)))
        inside = u32(both & u32(0xFFFF))
        while inside != 0:
            place = u32(u32(bits_of(x[j + trailing_zeros(inside)]) & u32(0x7FFFFFFF)) - first)
            counts[place >> shift] += one
            loose = u32(loose | place)
            inside = u32(inside & u32(inside - u32(1)))
    for j in range(whole, x.size):
        place = u32(u32(bits_of(x[j]) & u32(0x7FFFFFFF)) - first)
        if place < width:
            counts[place >> shift] += one
            loose = u32(loose | place)
        elif place < u32(0x80000000):
            above += 1
    return above, i64(loose & u32(u32(u32(1) << shift) - u32(1)))


@kernel
def count_all(x: Any, high: Any, one: Any, counts: Any) -> None:
    """Add `one` by the upper 16 bits of each magnitude (`high` -1), or by the lower ones where the upper are `high`."""
    if high < 0:
        for j in range(x.size):
            counts[u32(bits_of(x[j]) & u32(0x7FFFFFFF)) >> u32(16)] += one
        return
    for j in range(x.size):
        magnitude = u32(bits_of(x[j]) & u32(0x7FFFFFFF))
        if magnitude >> u32(16) == u32(high):
            counts[magnitude & u32(0xFFFF)] += one
