"""By directions and lengths, of weights or of differences from a base."""

from __future__ import annotations

from golden.case import Case

# What "mergekit" stands by below came out of mergekit 0.1.5, which was given these in float64.
A = [[0.0, 0.25, -0.25], [-0.25, -1.25, 0.25]]
B = [[0.0, 1.375, -0.5], [-0.625, 0.5, 0.375]]
C = [[0.125, -0.875, 0.0], [0.75, -1.375, -0.5]]
BASE = [[-1.875, -1.25, -1.875], [-0.25, -1.25, 0.25]]  # its second row is A's
P = [[[0.125, -0.125], [-2.5, -0.5]], [[0.0, 0.125], [-1.5, -0.5]]]
Q = [[[-1.0, -0.75], [1.0, -0.75]], [[0.0, 0.875], [-0.625, -0.125]]]
THIRD, FIFTH = {"weight": [1, 3]}, {"weight": [2, 0.5]}
ROWS = {"nuslerp_flatten": False}
COLUMNS = {"nuslerp_flatten": False, "nuslerp_row_wise": True}

GOLDEN: dict[str, list[Case]] = {
    "nuslerp": [
        # A right angle, t = 1/3: sin 60° and sin 30°; and the same as differences from [1 1]
        Case([[1, 0], [0, 2]], [0.8660254, 1.0], {"weight": [2, 1]}),
        Case([[2, 1], [1, 3]], [1.8660254, 2.0], {"weight": [2, 1]}, base=[1, 1]),
        # Collinear, and opposite: the straight line. A zero has a right angle: sin 45°. Weights that cancel: t = 1/2.
        Case([[1, 2], [3, 6]], [2.5, 5], {"weight": [1, 3]}),
        Case([[1, 0], [-3, 0]], [-1, 0], {"weight": 1}),
        Case([[0, 0], [3, 6]], [2.1213203, 4.2426407], {"weight": 1}),
        Case([[1, 0], [0, 6]], [0.70710678, 4.2426407], {"weight": [1, -1]}),
        # cos = 0.99995 is an arc still (slerp's line: [1.25 0.005]): (sin ¾Ω + 2 sin ¼Ω) / sin Ω, Ω = atan 0.01
        Case([[1, 0], [2, 0.02]], [1.2500133, 0.0050001], {"weight": [3, 1]}),
        # Rows at 0° and 90°, and columns at 90°, 0°: each by its own angle
        Case([[[1, 0], [1, 0]], [[3, 0], [0, 1]]], [[2, 0], [0.70710678, 0.70710678]], {"weight": 1} | ROWS),
        Case([[[1, 1], [0, 0]], [[0, 3], [1, 0]]], [[0.70710678, 2], [0.70710678, 0]], {"weight": 1} | COLUMNS),
        # A vector is one row and one column.
        *(Case([[1, 0], [0, 2]], [0.8660254, 1.0], {"weight": [2, 1]} | which) for which in (ROWS, COLUMNS)),
        # mergekit
        Case([A, B], [[0, 1.34809425, -0.5496464], [-0.66371038, -0.01069653, 0.43558242]], THIRD),
        Case(
            [A, B],
            [[0.05649748, 1.15865735, -0.39291538], [-0.53781979, 0.09315902, 0.34593993]],
            THIRD,
            base=BASE,
        ),
        Case(
            [P, Q],
            [
                [[-0.22106491, -0.38414589], [-2.14956194, -0.75845539]],
                [[0, 0.42737523], [-1.71338472, -0.54230868]],
            ],
            FIFTH,
        ),
        Case([A, B], [[0, 1.11023493, -0.44470544], [-0.77566957, -0.0822726, 0.51387127]], THIRD | ROWS),
        Case(
            [A, B],
            [[0.01687584, 1.11315135, -0.42418553], [-0.59645482, 0.36678918, 0.36548494]],
            THIRD | ROWS,
            base=BASE,
        ),
        Case(
            [P, Q],
            [
                [[-0.21555342, -0.37820302], [-2.63741963, -1.09356793]],
                [[0, 0.275], [-1.32642471, -0.42543359]],
            ],
            FIFTH | ROWS,
        ),
        Case([A, B], [[0, 1.44260494, -0.43824862], [-0.53125, -0.04153774, 0.34436074]], THIRD | COLUMNS),
        Case(
            [A, B],
            [[0.00687583, 1.16603996, -0.43635929], [-0.53205185, 0.09663752, 0.34380623]],
            THIRD | COLUMNS,
            base=BASE,
        ),
        Case(
            [P, Q],
            [
                [[-0.1, -0.25017693], [-2.35500898, -0.56920287]],
                [[0, 0.27520052], [-1.95930994, -0.43615502]],
            ],
            FIFTH | COLUMNS,
        ),
    ],
    "multislerp": [
        # The direction of ¾[1 0] + ¼[0 1], [3 1]/√10, at the length ¾·2 + ¼·4 = 2.5 (the plain mean: [1.5 1])
        Case([[2, 0], [0, 4]], [2.3717082, 0.7905694], {"weight": [3, 1]}),
        # The same as differences from [1 1]; and by weights as they are, at the length 3·2 + 4
        Case([[3, 1], [1, 5]], [3.3717082, 1.7905694], {"weight": [3, 1]}, base=[1, 1]),
        Case([[2, 0], [0, 4]], [9.4868330, 3.1622777], {"weight": [3, 1], "normalize_weights": False}),
        # ¼ of the mean length 3 beside each length: [2/2.75 4/4.75] has the length 1.1126845; at the length 3
        Case([[2, 0], [0, 4]], [1.9608596, 2.2704690], {"weight": 1, "eps": 0.25}),
        # Directions that cancel: the weighted sum. One model: itself, whatever its weight.
        Case([[1, 0], [-3, 0]], [-1, 0], {"weight": 1}),
        Case([[2, 6]], [2, 6], {"weight": 0.3, "normalize_weights": False}),
        Case([[0, 0], [0, 0]], [0, 0], {"weight": 1}),
        # mergekit
        Case(
            [A, B, C],
            [[0.01882506, 1.32941712, -0.59778207], [-0.60817605, -0.23572149, 0.39913747]],
            {"weight": [1, 3, 0.5]},
        ),
        Case(
            [A, B, C],
            [[0.08471278, 5.98237706, -2.6900193], [-2.73679224, -1.06074669, 1.7961186]],
            {"weight": [1, 3, 0.5], "normalize_weights": False},
        ),
        Case(
            [A, B, C],
            [[0.17861348, 0.9526914, -0.2379537], [-0.35343091, -0.12891021, 0.22590704]],
            {"weight": [1, 3, 0.5]},
            base=BASE,
        ),
        Case(
            [A, B, C],
            [[0.08958583, 0.04439239, -0.1738002], [0.12819987, -0.82131198, -0.07731624]],
            {"weight": [0.2, 0.3, 0.4], "normalize_weights": False},
            base=BASE,
        ),
    ],
}

EXCEPT: dict[str, dict[str, str]] = {
    "nuslerp": {"order": "it takes two models (test_spans.py turns them round)"},
}
