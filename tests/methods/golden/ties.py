"""Trimmed, elected, merged."""

from __future__ import annotations

from golden.case import Case

ZERO2 = [0, 0]
ZERO4 = [0, 0, 0, 0]
# Deltas with a sign conflict in each of the first two entries, a tie of magnitudes within the second, and a zero.
CLASH = [[4, -3, 1, 0], [-2, 5, 2, 1]]
TWO_ZERO = {"a": [0, 0], "b": [0, 0]}
TWO = {"a": [4, 3], "b": [1, 2]}

GOLDEN: dict[str, list[Case]] = {
    "ties": [
        # Two of four are kept: [4 −3 0 0] and, |−2| = |2| both reaching the threshold, [−2 5 2 0].
        # Votes 2, 2, 2, 0: all plus. Means of those that agree: 4, 5, 2, none.
        Case(CLASH, [4, 5, 2, 0], {"weight": 1, "density": 0.5}, base=ZERO4),
        # Votes 4−6, −3+15, 1+6, 0+3: − + + +. Weighted means −6/3, 15/3, 7/4, 3/3, doubled, on the base.
        Case([[5, -2, 2, 1], [-1, 6, 3, 2]], [-3, 11, 4.5, 3], {"weight": [1, 3], "scale": 2}, base=[1, 1, 1, 1]),
        # The same votes, summed: −6, 15, 7, 3
        Case(CLASH, [-6, 15, 7, 3], {"weight": [1, 3], "normalize": False}, base=ZERO4),
        # Votes [4 −3] and [−2 −1] sum to 2 and −4. First: 4 alone. Second: both agree, but 1 − 1 divides nothing: 0.
        Case([[4, -3], [2, 1]], [4, 0], {"weight": [1, -1]}, base=ZERO2),
        Case([[4, -3], [2, 1]], [4, -4], {"weight": [1, -1], "normalize": False}, base=ZERO2),
        # A vote of zero elects plus.
        Case([[2, -2], [-2, 2]], [2, 2], {"weight": 1}, base=ZERO2),
        # A density per model: all of the first, and 5 of the second.
        Case(CLASH, [4, 5, 1, 0], {"weight": 1, "density": [1, 0.25]}, base=ZERO4),
        # One of four is kept, 4 of a norm of 8: times 1, 8/4, or 1/0.25.
        Case([[4, 2, -1, 1]], [4, 0, 0, 0], {"weight": 1, "density": 0.25}, base=ZERO4),
        Case([[4, 2, -1, 1]], [8, 0, 0, 0], {"weight": 1, "density": 0.25, "rescale": "l1"}, base=ZERO4),
        Case([[4, 2, -1, 1]], [16, 0, 0, 0], {"weight": 1, "density": 0.25, "rescale": "probability"}, base=ZERO4),
        # Restored before the vote: 2·[4 0], [0 0 …]: 8 against −6 elects plus; 4 against −6 would elect minus.
        Case([[4, 2, -1, 1], [-6, 0, 0, 0]], [8, 0, 0, 0], {"weight": 1, "density": 0.25, "rescale": "l1"}, base=ZERO4),
        # Half of each tensor: 4 and 2; half of the whole model: 4 and 3.
        Case([TWO], {"a": [4, 0], "b": [0, 2]}, {"weight": 1, "density": 0.5}, base=TWO_ZERO),
        Case([TWO], {"a": [4, 3], "b": [0, 0]}, {"weight": 1, "density": 0.5, "scope": "model"}, base=TWO_ZERO),
        # A small density keeps the largest all the same: max(1, ⌊0.1·4⌋).
        Case([[4, 2, -1, 1]], [4, 0, 0, 0], {"weight": 1, "density": 0.1}, base=ZERO4),
        Case([[4, 2, -1, 1]], [0, 0, 0, 0], {"weight": 1, "density": 0}, base=ZERO4),
    ],
}
