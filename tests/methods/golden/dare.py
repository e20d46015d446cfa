"""Dropped at random."""

from __future__ import annotations

from golden.case import Case

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
    ],
}
