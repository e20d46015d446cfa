"""By angles between models."""

from __future__ import annotations

from golden.case import Case

ZERO2 = [0, 0]

GOLDEN: dict[str, list[Case]] = {
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
        # The directions' arc, sin 60° and sin 30°, at the length ⅔·1 + ⅓·2
        Case([[0, 2]], [1.1547005, 0.6666667], {"t": 1 / 3, "length": "interpolated"}, base=[1, 0]),
        # cos = 0.99995, an arc here: Ω/4 = 0.0024999167 at the length ¾·1 + ¼·2.0001
        Case([[2, 0.02]], [1.2500211, 0.0031250], {"t": 0.25, "length": "interpolated"}, base=[1, 0]),
        Case([[-3, 0]], [-1, 0], {"t": 0.5, "length": "interpolated"}, base=[1, 0]),
        Case([[2, 4]], [0.5, 1], {"t": 0.25, "length": "interpolated"}, base=[0, 0]),
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
        # A quarter of a right angle at the length (3·2 + 4)/4; a weight of 0 takes no part at all
        Case([[2, 0], [0, 4]], [2.3096988, 0.9567086], {"weight": [3, 1]}),
        Case([[0, 5], [3, 0], [-3, 0]], [3, 0], {"weight": [0, 1, 1]}),
        # Where that starts from: the direction of ¾[1 0] + ¼[0 1]
        Case([[2, 0], [0, 4]], [2.3717082, 0.7905694], {"weight": [3, 1], "max_iter": 0}),
        # What mergekit 0.1.5 gave in float64
        Case(
            [
                [[0.0, 0.25, -0.25], [-0.25, -1.25, 0.25]],
                [[0.0, 1.375, -0.5], [-0.625, 0.5, 0.375]],
                [[0.125, -0.875, 0.0], [0.75, -1.375, -0.5]],
            ],
            [[0.07990442, 0.65026979, -0.55179762], [-0.16634296, -1.38261172, 0.13820805]],
        ),
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
        # Four in two pairs: cosines 1 0 0 0 0 1, mean ⅓, t = ⅔; angles 0° 90°·4 0°, mean 60°, t = 0.8; neighbours'
        # cosines 1 0 1, mean ⅔, t = 8/9. By rows the second has t = 1.
        *(
            Case([[1, 0], [1, 0], [0, 1], [0, 1]], [t / 2, t / 2], {"cosine": rule}, base=ZERO2)
            for rule, t in (("mean", 2 / 3), ("mean_angle", 0.8), ("neighbours", 8 / 9))
        ),
        Case(
            [[[1, 0], [2, 1]], [[1, 0], [2, 1]], [[0, 1], [2, 1]], [[0, 1], [2, 1]]],
            [[4 / 9, 4 / 9], [2, 1]],
            {"cosine": "neighbours", "filter_wise": True},
            base=[ZERO2, ZERO2],
        ),
        # 1 + cos = 0: no ratio is finite; the base
        Case([[3, 1], [0, 1]], [1, 1], base=[1, 1]),
        # A delta of zero length has cosine 0 with the other: t = 0
        Case([[1, 1], [3, 1]], [1, 1], base=[1, 1]),
    ],
}

EXCEPT: dict[str, dict[str, str]] = {
    "slerp": {"order": "it goes from the base to the model"},
    "model_stock": {"scale 0": "it has no scale"},
}
