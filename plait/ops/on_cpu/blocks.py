"""Sums in float64 over fixed blocks, in a fixed order; and the exact k-th largest magnitude by its bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from plait.ops.on_cpu.jit import kernel
from plait.ops.sizes import BLOCK, LANES

__all__ = [
    "BLOCK",
    "LANES",
    "abs_sum",
    "abs_sum_blocks",
    "dot",
    "fold",
    "gram_blocks",
    "histogram_high",
    "histogram_low",
    "plain_sum",
    "window_count",
]

f64 = np.float64
u32 = np.uint32


@kernel
def fold(lanes: Any) -> float:
    """Add the upper half of the lanes to the lower half, until one is left."""
    half = LANES // 2
    while half > 0:
        for lane in range(half):
            lanes[lane] = lanes[lane] + lanes[lane + half]
        half //= 2
    return float(lanes[0])


@kernel
def dot(x: Any, y: Any, lanes: Any) -> float:
    """Lane l adds the products of elements l, l + 64, l + 128, … in turn; four at a time, to spare the stores."""
    for lane in range(LANES):
        lanes[lane] = 0.0
    for low in range(0, x.size - 4 * LANES + 1, 4 * LANES):
        a, b = x[low : low + 4 * LANES], y[low : low + 4 * LANES]
        for lane in range(LANES):
            total = lanes[lane] + f64(a[lane]) * f64(b[lane])
            total = total + f64(a[lane + LANES]) * f64(b[lane + LANES])
            total = total + f64(a[lane + 2 * LANES]) * f64(b[lane + 2 * LANES])
            lanes[lane] = total + f64(a[lane + 3 * LANES]) * f64(b[lane + 3 * LANES])
    for low in range(x.size - x.size % (4 * LANES), x.size, LANES):
        for lane in range(min(LANES, x.size - low)):
            lanes[lane] = lanes[lane] + f64(x[low + lane]) * f64(y[low + lane])
    return fold(lanes)


@kernel
def abs_sum(x: Any, lanes: Any) -> float:
    """Sum one block's magnitudes, lane by lane as `dot`."""
    for lane in range(LANES):
        lanes[lane] = 0.0
    for low in range(0, x.size - 4 * LANES + 1, 4 * LANES):
        a = x[low : low + 4 * LANES]
        for lane in range(LANES):
            total = lanes[lane] + f64(abs(a[lane]))
            total = total + f64(abs(a[lane + LANES]))
            total = total + f64(abs(a[lane + 2 * LANES]))
            lanes[lane] = total + f64(abs(a[lane + 3 * LANES]))
    for low in range(x.size - x.size % (4 * LANES), x.size, LANES):
        for lane in range(min(LANES, x.size - low)):
            lanes[lane] = lanes[lane] + f64(abs(x[low + lane]))
    return fold(lanes)


@kernel
def plain_sum(x: Any, lanes: Any) -> float:
    """Sum one block, lane by lane as `dot`."""
    for lane in range(LANES):
        lanes[lane] = 0.0
    for low in range(0, x.size - 4 * LANES + 1, 4 * LANES):
        a = x[low : low + 4 * LANES]
        for lane in range(LANES):
            total = lanes[lane] + f64(a[lane])
            total = total + f64(a[lane + LANES])
            total = total + f64(a[lane + 2 * LANES])
            lanes[lane] = total + f64(a[lane + 3 * LANES])
    for low in range(x.size - x.size % (4 * LANES), x.size, LANES):
        for lane in range(min(LANES, x.size - low)):
            lanes[lane] = lanes[lane] + f64(x[low + lane])
    return fold(lanes)


@kernel
def gram_blocks(stack: Any, lanes: Any, out: Any) -> None:
    """Kernel of the op: `[k, n]` -> `[blocks, k(k+1)/2]`; `lanes` is room for `LANES` numbers."""
    for block in range(out.shape[0]):
        low = block * BLOCK
        pair = 0
        for i in range(stack.shape[0]):
            for j in range(i, stack.shape[0]):
                out[block, pair] = dot(stack[i, low : low + BLOCK], stack[j, low : low + BLOCK], lanes)
                pair += 1


@kernel
def abs_sum_blocks(stack: Any, lanes: Any, out: Any) -> None:
    """Kernel of the op: `[k, n]` -> `[blocks, k]`; `lanes` is room for `LANES` numbers."""
    for block in range(out.shape[0]):
        low = block * BLOCK
        for i in range(stack.shape[0]):
            out[block, i] = abs_sum(stack[i, low : low + BLOCK], lanes)


@kernel
def histogram_high(bits: Any, counts: Any) -> None:
    """Kernel of plait.ops.magnitude's, on int32 bits `[n]`."""
    for j in range(bits.size):
        counts[(bits[j] & 0x7FFFFFFF) >> 16] += 1


@kernel
def histogram_low(bits: Any, high: int, counts: Any) -> None:
    """Kernel of plait.ops.magnitude's, on int32 bits `[n]`."""
    for j in range(bits.size):
        size = bits[j] & 0x7FFFFFFF
        if size >> 16 == high:
            counts[size & 0xFFFF] += 1


@kernel
def window_count(bits: Any, low_bits: int, counts: Any) -> int:
    """Kernel of plait.ops.magnitude's, on int32 bits `[n]`."""
    above = 0
    width = u32(counts.size)
    for j in range(bits.size):
        size = bits[j] & 0x7FFFFFFF
        above += size >= low_bits + counts.size
        place = u32(size - low_bits)  # what lies below the window becomes large: one comparison, seldom true
        if place < width:
            counts[place] += 1
    return above
