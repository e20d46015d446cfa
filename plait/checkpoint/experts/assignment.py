"""Who is paired with whom: the linear assignment problem, exactly, in whole numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["assign"]

Numbers = npt.NDArray[np.int64]
_STEPS = 30  # a level's values are compared in steps of 2^-30 of the power of two above their largest
_NEVER = 1 << 45  # above any sum of a level's costs, and small enough that such sums fit 64 bits


def assign(levels: Sequence[npt.NDArray[np.float64]], groups: int = 1) -> Numbers:
    """Pair rows with columns so that the sum of `levels[0]` is greatest, among equals that of `levels[1]`, and so on.

    Among those that are equal in all, as many as can be stay where they are, row i with column i. Values closer than
    about 2⁻³⁰ of the level's largest magnitude count as equal, so that rounding decides nothing.

    Args:
        levels: Each `[n, n]`, finite; n up to 1024.
        groups: Into how many runs of equal length rows and columns are cut; a group is paired with a group as a whole.

    Returns:
        For each row its column, `[n]`.

    >>> assign([np.array([[0.0, 2.0], [1.0, 2.0]])]).tolist()
    [1, 0]
    """
    count = len(levels[0])
    allowed = np.ones((count, count), bool)
    pairs = np.arange(count)
    for level in (*levels, np.eye(count)):
        power = int(np.frexp(abs(level).max())[1])  # of two, so that whole numbers and halves stay exact
        cost = -np.rint(np.ldexp(level, _STEPS - power)).astype(np.int64)
        cost -= cost.min()
        pairs, allowed = _by_groups(np.where(allowed, cost, _NEVER), allowed, groups)
    return pairs


def _by_groups(cost: Numbers, allowed: npt.NDArray[np.bool_], groups: int) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """Return the best pairs, and which pairs are in some solution as good; whole groups go to whole groups."""
    size = len(cost) // groups
    spans = [slice(g * size, (g + 1) * size) for g in range(groups)]
    inner = [[_solve(cost[row, column]) for column in spans] for row in spans]
    totals = np.array(
        [
            [int(cost[row, column][np.arange(size), one[0]].sum()) for column, one in zip(spans, ones, strict=True)]
            for row, ones in zip(spans, inner, strict=True)
        ]
    )
    chosen, tight = _solve(totals)
    pairs, left = np.empty(len(cost), np.int64), np.zeros_like(allowed)
    for g, row in enumerate(spans):
        pairs[row] = inner[g][chosen[g]][0] + spans[chosen[g]].start
        for h, column in enumerate(spans):
            left[row, column] = inner[g][h][1] & tight[g, h]
    return pairs, left & allowed


def _solve(cost: Numbers) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    """Return the columns of least total cost, and which pairs are in some such solution (those of no reduced cost).

    Shortest augmenting paths, row after row (Jonker and Volgenant 1987, <https://doi.org/10.1007/BF02278710>).
    """
    count = len(cost)
    rows, columns = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)  # what each row and column costs
    owner = np.full(count + 1, count)  # of each column; the last column is where a path begins
    for row in range(count):
        owner[count] = row
        column, came_from = count, np.full(count, count)
        least, done = np.full(count, np.iinfo(np.int64).max), np.zeros(count + 1, bool)
        while owner[column] < count:
            done[column] = True
            own, free = owner[column], np.flatnonzero(~done[:count])
            reduced = cost[own, free] - rows[own] - columns[free]
            nearer = reduced < least[free]
            least[free[nearer]], came_from[free[nearer]] = reduced[nearer], column
            nearest = int(free[np.argmin(least[free])])
            step = least[nearest]
            rows[owner[done]] += step
            columns[done] -= step
            least[free] -= step
            column = nearest
        while column != count:
            owner[column] = owner[came_from[column]]
            column = int(came_from[column])
    pairs = np.empty(count, np.int64)
    pairs[owner[:count]] = np.arange(count)
    return pairs, (cost - rows[:count, None] - columns[None, :count]) == 0
