"""A method's arithmetic as one loop: written from what `plait.ops.trace` noted, compiled and kept, run over raw elements.

A *grid* is the raw elements of several models of one type side by side, `[rows, bytes]` uint8, the base last if there is
one. What a fused loop writes is the same, bit for bit, as the ops called one after the other: it does the same
operations in the same order, only without arrays in between.
"""

from plait.ops.fusing.grids import (
    Grid,
    gram_of_grid,
    grid_can,
    histogram_of_grid,
    merge_grid,
    models_of_grid,
    rows_of_grid,
    sums_of_grid,
    window_of_grid,
)
from plait.ops.fusing.program import Program, merging, summing

__all__ = [
    "Grid",
    "Program",
    "gram_of_grid",
    "grid_can",
    "histogram_of_grid",
    "merge_grid",
    "merging",
    "models_of_grid",
    "rows_of_grid",
    "summing",
    "sums_of_grid",
    "window_of_grid",
]
