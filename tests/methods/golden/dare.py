"""Dropped at random."""

from __future__ import annotations

from golden.case import Case
from golden.ties import EVEN, THREE, THREE_BASE, TWO, TWO_ZERO, VOTERS, ZERO3

ZERO4 = [0, 0, 0, 0]
# Deltas with a sign conflict in each of the first two entries, a tie of magnitudes within the second, and a zero.
CLASH = [[4, -3, 1, 0], [-2, 5, 2, 1]]
ZERO8 = [0] * 8
EIGHT = [1] * 8

GOLDEN: dict[str, list[Case]] = {
    "dare_linear": [
        # Nothing dropped: task arithmetic, 2·([1 −1 0] + ½·[3 0 −2])
        Case([[2, 0, 1], [4, 1, -1]], [6, -1, -1], {"weight": [1, 0.5], "scale": 2}, base=[1, 1, 1]),
        # ([1 −1 0] + 3·[3 0 −2]) / 4
        Case([[2, 0, 1], [4, 1, -1]], [3.5, 0.75, -0.5], {"weight": [1, 3], "normalize": True}, base=[1, 1, 1]),
        # Everything dropped: the base, and no division by 0
        Case([[2, 0, 1], [4, 1, -1]], [1, 1, 1], {"weight": 1, "density": 0}, base=[1, 1, 1]),
        Case(
            [[2, 0, 1], [4, 1, -1]],
            [1, 1, 1],
            {"weight": 1, "density": 0, "rescale": "probability"},
            base=[1, 1, 1],
        ),
        # Seed 0 keeps the first, third and fourth of eight (test_golden works this mask out): as they are, over the
        # density, or times 8/3, so that the norm is what it was.
        Case([EIGHT], [1, 0, 1, 1, 0, 0, 0, 0], {"weight": 1, "density": 0.25, "rescale": "none"}, base=ZERO8),
        Case([EIGHT], [4, 0, 4, 4, 0, 0, 0, 0], {"weight": 1, "density": 0.25, "rescale": "probability"}, base=ZERO8),
        Case([EIGHT], [8 / 3, 0, 8 / 3, 8 / 3, 0, 0, 0, 0], {"weight": 1, "density": 0.25}, base=ZERO8),
        # Seed 2 keeps [4 −3 0 0] and [−2 5 0 0], whose norms were 8 and 10 and are 7 and 7.
        Case(CLASH, [6, -1, 0, 0], {"weight": [1, 0.5], "density": 0.5, "rescale": "probability"}, base=ZERO4, seed=2),
        Case(CLASH, [22 / 7, 1 / 7, 0, 0], {"weight": [1, 0.5], "density": 0.5}, base=ZERO4, seed=2),
        # Seed 1 keeps [4 0 1 0] and all of the second: doubled, and averaged without weights.
        Case(CLASH, [2, 5, 3, 1], {"variant": "paper", "density": 0.5}, base=ZERO4, seed=1),
        # Seed 1's numbers for eight ones are below 0.8 but for the third, sixth and eighth (see test_sparse.py).
        Case([EIGHT], [1.25, 1.25, 0, 1.25, 1.25, 0, 1.25, 0], {"variant": "paper"}, base=ZERO8, seed=1),
    ],
    "dare_ties": [
        # Nothing dropped; votes −2, 12, 7, 3 as for TIES; summed, as normalize is false here
        Case(CLASH, [-6, 15, 7, 3], {"weight": [1, 3]}, base=ZERO4),
        Case(CLASH, [-4, 10, 3.5, 2], {"weight": [1, 3], "normalize": True, "scale": 2}, base=ZERO4),
        Case(CLASH, [0, 0, 0, 0], {"weight": 1, "density": 0}, base=ZERO4),
        # Seed 2 keeps [4 −3 0 0] and [−2 5 0 0]: votes 4−6 and −3+15; each restored by 8/7 and 10/7 they stay − and +.
        Case(CLASH, [-12, 30, 0, 0], {"weight": [1, 3], "density": 0.5, "rescale": "probability"}, base=ZERO4, seed=2),
        Case(CLASH, [-60 / 7, 150 / 7, 0, 0], {"weight": [1, 3], "density": 0.5}, base=ZERO4, seed=2),
        # Seed 1 keeps [4 0 1 0] and all of the second.
        Case(CLASH, [4, 5, 3, 1], {"weight": 1, "density": 0.5, "rescale": "none"}, base=ZERO4, seed=1),
        # Of these, two of four are trimmed to: [4 0 1 0], and [−2 5 2 0], as |−2| = |2|; or one: 4 and 5.
        Case(CLASH, [4, 5, 3, 0], {"weight": 1, "density": 0.5, "rescale": "none", "trim": 0.5}, base=ZERO4, seed=1),
        Case(CLASH, [8, 10, 0, 0], {"variant": "paper", "density": 0.5}, base=ZERO4, seed=1),
        Case([TWO], {"a": [4, 0], "b": [0, 2]}, {"weight": 1, "trim": 0.5}, base=TWO_ZERO),
        Case([TWO], {"a": [4, 3], "b": [0, 0]}, {"weight": 1, "trim": 0.5, "scope": "model"}, base=TWO_ZERO),
        # The votes and merges of TIES (see there), with nothing dropped
        Case(VOTERS, [6, -4, 8], {"weight": [1, 2, 1], "merge": "count", "vote": "total"}, base=ZERO3),
        Case(EVEN, [-2, -2, -2], {"weight": 1, "zero_vote": "majority"}, base=ZERO3),
        # Only what is left of the trim has a vote: 0 and −, not the two plusses between.
        Case(
            [[4, 1, 0.5, -5], [-4, 1, 0.5, -3]],
            [-4, 0, 0, -8],
            {"weight": 1, "trim": 0.5, "zero_vote": "majority"},
            base=ZERO4,
        ),
        # mergekit 0.1.5's merge_tensors, in float64, nothing dropped
        Case(
            THREE,
            [
                [1.3263889, -1.734375, -2.1875, 3.4861111, 0.055555556, 0.09375],
                [2.0982143, 0.56944444, -0.5390625, 2.8125, 1.4861111, 0.625],
            ],
            {"weight": [1, 0.6, 0.8], "normalize": True},
            base=THREE_BASE,
        ),
    ],
}
