"""Trimmed, elected, merged."""

from __future__ import annotations

from golden.case import Case

ZERO2 = [0, 0]
ZERO4 = [0, 0, 0, 0]
# Deltas with a sign conflict in each of the first two entries, a tie of magnitudes within the second, and a zero.
CLASH = [[4, -3, 1, 0], [-2, 5, 2, 1]]
ZERO3 = [0, 0, 0]
VOTERS = [[6, 1, -1], [-3, 2, 4], [-2, -4, -2]]
EVEN = [[2, -2, -1], [-2, 2, -1]]
PARTS_BASE = {"a": [0] * 3, "b": [0] * 2}
PARTS = [{"a": [2, -1, -1], "b": [2, 1]}, {"a": [-2, -1, -1], "b": [-2, 1]}]
FIFTH_BASE = {"a": [0] * 5, "b": [0] * 5}
FIFTH = [{"a": [9, -8, 1, 1, 1], "b": [2, 1, 1, 1, 1]}, {"a": [-9, 1, 1, 1, -7], "b": [3, 1, 1, 1, 1]}]
# The same for all that is compared with mergekit: no two magnitudes of a model's deltas are equal.
THREE_BASE = [[0.5, -1, 0, 2, 1, -0.5], [1, 0, -2, 0.5, 0.25, 3]]
THREE = [
    [[1.6875, -1.6875, 0.3125, 4.125, -0.5, -0.375], [0.125, 0.375, -0.1875, 0.3125, 0.875, 0.625]],
    [[-0.625, -1.8125, 0.5, 0.125, 1.1875, 0.875], [1.3125, -1.625, -1.125, 2.8125, -0.375, 3.125]],
    [[0.875, 0.3125, -2.1875, 2.6875, 0.75, -1.5], [2.6875, 0.8125, -2.125, 0.0, 2.25, 3.1875]],
]
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
        # Each way to vote has another outcome for 1 2 1 times the deltas: weighted −2 1 5, total 1 −1 1, frequency − + −.
        Case(VOTERS, [-8 / 3, 5 / 3, 4], {"weight": [1, 2, 1]}, base=ZERO3),
        Case(VOTERS, [6, -4, 4], {"weight": [1, 2, 1], "vote": "total"}, base=ZERO3),
        Case(VOTERS, [-8 / 3, 5 / 3, -1.5], {"weight": [1, 2, 1], "vote": "frequency"}, base=ZERO3),
        # The weighted entries that agree are −6 −2, 1 4, and 8: halved where they are two; their largest.
        Case(VOTERS, [-4, 2.5, 8], {"weight": [1, 2, 1], "merge": "count"}, base=ZERO3),
        Case(VOTERS, [-6, 4, 8], {"weight": [1, 2, 1], "merge": "max"}, base=ZERO3),
        Case(VOTERS, [6, -4, 8], {"weight": [1, 2, 1], "merge": "count", "vote": "total"}, base=ZERO3),
        # Without weights in the vote, an entry's own sign decides whether it agrees: −4 does, and counts as 4.
        Case(VOTERS, [6, 4, 8], {"weight": [1, 2, -1], "merge": "count", "vote": "total"}, base=ZERO3),
        Case(VOTERS, [6, 4, 8], {"weight": [1, 2, -1], "merge": "sum", "vote": "total"}, base=ZERO3),
        Case(VOTERS, [6, -4, 4], {"weight": [1, 2, -1], "merge": "mean", "vote": "total"}, base=ZERO3),
        # Votes of 0 0 −2: the one elected sign is a minus, which goes to the others too.
        Case(EVEN, [2, 2, -1], {"weight": 1}, base=ZERO3),
        Case(EVEN, [-2, -2, -1], {"weight": 1, "zero_vote": "majority"}, base=ZERO3),
        Case(EVEN, [-2, -2, -2], {"weight": 1, "merge": "sum", "zero_vote": "majority"}, base=ZERO3),
        Case(EVEN, [-2, -2, -1], {"weight": 1, "merge": "max", "zero_vote": "majority"}, base=ZERO3),
        # By weight the votes are 2 −2 −4 of 2 and −4 …: nothing is even.
        Case(EVEN, [-2, 2, -1], {"weight": [1, 3], "zero_vote": "majority"}, base=ZERO3),
        # Votes of 0 − − and 0 +: over the model − is elected more often, over the second tensor +.
        Case(PARTS, {"a": [-2, -1, -1], "b": [2, 1]}, {"weight": 1, "zero_vote": "majority"}, base=PARTS_BASE),
        Case(
            PARTS,
            {"a": [-2, -1, -1], "b": [-2, 1]},
            {"weight": 1, "zero_vote": "majority", "scope": "model"},
            base=PARTS_BASE,
        ),
        # A fifth of ten is two a model: 9 −8 and −9 −7, all of the one tensor. Votes 0 −8 −7, so − throughout.
        Case(FIFTH, {"a": [-9, -8, 0, 0, -7], "b": [0] * 5}, {"variant": "paper"}, base=FIFTH_BASE),
        Case(FIFTH, {"a": [9, -8, 0, 0, -7], "b": [0] * 5}, {"variant": "paper", "zero_vote": "plus"}, base=FIFTH_BASE),
        # One of each tensor: a fifth of five. In `a` an even vote alone, so plus; in `b` 2 and 3 agree.
        Case(
            FIFTH,
            {"a": [9, 0, 0, 0, 0], "b": [2.5, 0, 0, 0, 0]},
            {"variant": "paper", "scope": "tensor"},
            base=FIFTH_BASE,
        ),
        # mergekit 0.1.5's merge_tensors, in float64
        Case(
            THREE,
            [[1.6875, -3.9375, 3.1875, 4.125, -0.5, 0.875], [-0.97321429, -1.625, -0.5390625, 2.8125, -3.0, 0.625]],
            {"weight": [1.0, 0.6, -0.3], "density": [0.5, 0.75, 0.34]},
            base=THREE_BASE,
        ),
        Case(
            THREE,
            [
                [1.5259098, -0.091458333, -1.5142361, 3.8358386, -0.29588608, 0.23857143],
                [2.168125, -0.87285714, 0.035862342, 1.7421429, 1.6344444, 0.94818038],
            ],
            {"weight": [1, 0.6, 0.8], "density": 0.5, "normalize": False, "rescale": True, "lambda": 0.7},
            base=THREE_BASE,
        ),
        # A small density keeps the largest all the same: max(1, ⌊0.1·4⌋).
        Case([[4, 2, -1, 1]], [4, 0, 0, 0], {"weight": 1, "density": 0.1}, base=ZERO4),
        Case([[4, 2, -1, 1]], [0, 0, 0, 0], {"weight": 1, "density": 0}, base=ZERO4),
    ],
}
