"""Merges worked out by hand, chosen so that look-alikes come out differently. `GOLDEN` has some for every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Nested = Sequence[Any] | Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Case:
    """Models of one tensor ("w") or, as dicts, of several; parameters; what must come out."""

    models: Sequence[Nested]
    expected: Nested
    parameters: Mapping[str, Any] = field(default_factory=dict)
    base: Nested | None = None
    seed: int = 0


ZERO2, ZERO4 = [0, 0], [0, 0, 0, 0]
# Deltas with a sign conflict in each of the first two entries, a tie of magnitudes within the second, and a zero.
CLASH = [[4, -3, 1, 0], [-2, 5, 2, 1]]
ZERO8, EIGHT = [0] * 8, [1] * 8

TWO, TWO_ZERO = {"a": [4, 3], "b": [1, 2]}, {"a": [0, 0], "b": [0, 0]}

GOLDEN: dict[str, list[Case]] = {
    "linear": [
        # (3·1 + 1·5) / 4 and (3·−4 + 1·0) / 4
        Case([[1, -4], [5, 0]], [2, -3], {"weight": [3, 1]}),
        # 0.5·1 + 2·3 and 0.5·−4 + 2·2: not divided by 2.5
        Case([[1, -4], [3, 2]], [6.5, 2], {"weight": [0.5, 2], "normalize": False}),
        # (2·1 − 4) / 1 and (2·3 − 1) / 1: a model may be taken away
        Case([[1, 3], [4, 1]], [-2, 5], {"weight": [2, -1]}),
    ],
    "task_arithmetic": [
        # deltas [1 −1 0], [3 0 −2]; with 1 and ½: [2.5 −1 −1]; doubled, on the base
        Case([[2, 0, 1], [4, 1, -1]], [6, -1, -1], {"weight": [1, 0.5], "scale": 2}, base=[1, 1, 1]),
        # (1·[1 −1 0] + 3·[3 0 −2]) / 4 = [2.5 −0.25 −1.5]
        Case([[2, 0, 1], [4, 1, -1]], [3.5, 0.75, -0.5], {"weight": [1, 3], "normalize": True}, base=[1, 1, 1]),
        # weights that cancel divide nothing: [1 −1 0] − [3 0 −2] = [−2 −1 2]
        Case([[2, 0, 1], [4, 1, -1]], [-1, 0, 3], {"weight": [1, -1], "normalize": True}, base=[1, 1, 1]),
    ],
    "passthrough": [
        Case([[2, -4, 0]], [2, -4, 0]),
        Case([[2, -4, 0]], [-1, 2, 0], {"scale": -0.5}),
        Case([[2, -4, 0]], [0, 0, 0], {"scale": 0}),
    ],
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
    "magmax": [
        # −3, −4, and of 2 and −2 the positive one; halved, on the base
        Case([[2, -3, 3], [-2, 3, -1]], [-0.5, -1, 2], base=[1, 1, 1]),
        Case([[-2, 3, -1], [2, -3, 3]], [-0.5, -1, 2], base=[1, 1, 1]),
        Case([[1, 0, -5], [-3, 0, 4]], [-3, 0, -5], {"scale": 1}, base=[0, 0, 0]),
    ],
    "slerp": [
        # A right angle: sin 60° and sin 30° over 1, of vectors that keep their own lengths
        Case([[0, 2]], [0.8660254, 1.0], {"t": 1 / 3}, base=[1, 0]),
        # sin −90° and sin 180°: past the end of the arc
        Case([[0, 1]], [-1, 0], {"t": 2}, base=[1, 0]),
        # cos = 0.99995: the straight line
        Case([[2, 0.02]], [1.25, 0.005], {"t": 0.25}, base=[1, 0]),
        # cos = 0.99920: the arc, sin(Ω/2) / sin Ω = 1 / (2 cos(Ω/2)) = 0.5000999 with Ω = atan 0.04
        Case([[1, 0.04]], [1.0001999, 0.0200040], {"t": 0.5}, base=[1, 0]),
        # cos = −1, and a zero vector: straight lines
        Case([[-3, 0]], [-1, 0], {"t": 0.5}, base=[1, 0]),
        Case([[2, 4]], [0.5, 1], {"t": 0.25}, base=[0, 0]),
        # One angle for the whole tensor (its rows have 0° and 90°): cos = 1/2, sin 15° / sin 60° · ..., t = 1/4
        Case(
            [[[1, 0], [0, 1]]],
            [[1.1153551, 0.0], [0.8164966, 0.2988585]],
            {"t": 0.25},
            base=[[1, 0], [1, 0]],
        ),
    ],
    "karcher": [
        # Halfway along a right angle, at the mean length 3; the plain mean is [1, 2].
        Case([[2, 0], [0, 4]], [2.1213203, 2.1213203]),
        # On a circle the mean angle: (0° + 0° + 90°) / 3 = 30°; the plain mean points to 26.6°.
        Case([[1, 0], [1, 0], [0, 1]], [0.8660254, 0.5]),
        # Without a step, where it starts: the plain mean's direction
        Case([[1, 0], [1, 0], [0, 1]], [0.8944272, 0.4472136], {"max_iter": 0}),
        # A zero tensor has no direction, but a length
        Case([[3, 0], [0, 0]], [1.5, 0]),
        Case([[0, 0], [0, 0]], [0, 0]),
        # Opposite ones cancel: the first
        Case([[1, 0], [-1, 0]], [1, 0]),
        # A tolerance of 0 never stops early, and divides no zero by zero
        Case([[1, 0], [1, 0], [0, 1]], [0.8660254, 0.5], {"tol": 0}),
        Case([[3, 4], [3, 4]], [3, 4], {"tol": 0}),
    ],
    "model_stock": [
        # cos([1 0], [4 3]) = 0.8: t = 1.6 / 1.8 = 8/9 of the mean delta [2.5 1.5]
        Case([[2, 2], [5, 5]], [3.2222222, 3.3333333], base=[1, 2]),
        # Three models, cosines 0, 1, 0: their mean ⅓ (the mean angle would give ½), t = 1 / (5/3) = 0.6 of [⅔ ⅓]
        Case([[1, 0], [0, 1], [1, 0]], [0.4, 0.2], base=ZERO2),
        # One t: cos = ½, t = ⅔
        Case(
            [[[2, 1], [2, 1]], [[1, 2], [2, 1]]],
            [[1.3333333, 1.3333333], [1.6666667, 1]],
            base=[[1, 1], [1, 1]],
        ),
        # A t for each row: cos = 0, the base; cos = 1, the mean
        Case([[[2, 1], [2, 1]], [[1, 2], [2, 1]]], [[1, 1], [2, 1]], {"filter_wise": True}, base=[[1, 1], [1, 1]]),
        # 1 + cos = 0: no ratio is finite; the base
        Case([[3, 1], [0, 1]], [1, 1], base=[1, 1]),
        # A delta of zero length has cosine 0 with the other: t = 0
        Case([[1, 1], [3, 1]], [1, 1], base=[1, 1]),
    ],
    "arcee_fusion": [
        # One row, so one KL: |δ| = 0 1 2 3 20 has quartiles 1, 2, 3; 2 + 1.5·2 = 5 leaves the 20.
        Case([[1, 2, 3, 4, 21]], [1, 1, 1, 1, 21], base=[1, 1, 1, 1, 1]),
        # The first row is shifted as a whole: the same softmax, so KL = 0 and no importance, large as |δ| is. Of
        # KL·[0 0 0 0 0 1 2 3 4 40] quartiles are 0, 0.5, 2.75; 0.5 + 1.5·2.75 = 4.625 leaves the 40. (By |δ| alone
        # nothing would be left: 50 + 1.5·56.75.)
        Case(
            [[[60, 60, 60, 60, 60], [1, 2, 3, 4, 40]]],
            [[0, 0, 0, 0, 0], [0, 0, 0, 0, 40]],
            base=[[0, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
        ),
    ],
}
