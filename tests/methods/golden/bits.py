"""Signs and one number."""

from __future__ import annotations

from golden.case import Case

ZERO4 = [0, 0, 0, 0]
ONE = [[4, -2, 0, 2]]
TWO_ZERO = {"a": [0, 0], "b": [0, 0]}
TWO = [{"a": [4, -2], "b": [0, 2]}]
DEVIATION = (20 / 3) ** 0.5  # of 4 −2 0 2: mean 1, squares of the differences 9 9 1 1, over n − 1

GOLDEN: dict[str, list[Case]] = {
    "bitdelta": [
        # Mean magnitude 2 (of the nonzero ones it were 8/3)
        Case(ONE, [2, -2, 2, 2], base=ZERO4),
        Case(ONE, [2, -2, -2, 2], {"zero_as": "minus"}, base=ZERO4),
        Case([[5, -2, 1, 3]], [2, -1, 1, 2], {"zero_as": "zero", "scale": 0.5}, base=[1, 0, 1, 1]),
        # …and half of 1 −1 with mean 1
        Case([*ONE, [1, 1, -1, 1]], [2.5, -1.5, 1.5, 2.5], {"weight": [1, 0.5]}, base=ZERO4),
        # A mean for each tensor
        Case(TWO, {"a": [3, -3], "b": [1, 1]}, base=TWO_ZERO),
        Case([[0, 0, 0, 0]], [0, 0, 0, 0], base=ZERO4),
    ],
    "compeft": [
        # Two of four are kept, and those equal to them; by default ⌊0.2·4⌋, but at least one
        Case(ONE, [DEVIATION, -DEVIATION, 0, DEVIATION], {"density": 0.5}, base=ZERO4),
        Case([[5, -1, 1, 3]], [1 + DEVIATION, 1, 1, 1], base=[1, 1, 1, 1]),
        Case(ONE, [6 * DEVIATION, 0, 0, 0], {"alpha": 3, "scale": 2}, base=ZERO4),
        # −1 1 3 1: mean 1, squares 4 0 4 0: √(8/3); 2·DEVIATION·[1 0 0 0] − ½·3·√(8/3)·[0 0 1 0]
        Case(
            [*ONE, [-1, 1, 3, 1]],
            [2 * DEVIATION, 0, -1.5 * (8 / 3) ** 0.5, 0],
            {"alpha": [2, 3], "weight": [1, -0.5]},
            base=ZERO4,
        ),
        # From the authors' topk_values_mask and torch's std: α 2, three of eight
        Case(
            [[[2.375, 2.125, 3.875, -1.75], [0.5, -1.25, 4.125, 0.875]]],
            [[2.375, 1.125, 4.621277452, -1.75], [1.25, -2.371277452, 4.496277452, 0.875]],
            {"alpha": 2, "density": 0.375},
            base=[[2.375, 1.125, 1.625, -1.75], [1.25, 0.625, 1.5, 0.875]],
        ),
        # Over the whole model, the same; tensor by tensor half of [4 −2] at √18 and of [0 2] at √2.
        Case(TWO, {"a": [DEVIATION, 0], "b": [0, 0]}, {"density": 0.25}, base=TWO_ZERO),
        Case(TWO, {"a": [18**0.5, 0], "b": [0, 2**0.5]}, {"density": 0.5, "scope": "tensor"}, base=TWO_ZERO),
        # One entry, or equal ones, deviate from nothing.
        Case([[3]], [0], base=[0]),
        Case([[3, 3, 3]], [0, 0, 0], {"density": 1}, base=[0, 0, 0]),
    ],
}

EXCEPT: dict[str, dict[str, str]] = {
    "bitdelta": {"copies": "it keeps one bit an entry"},
    "compeft": {"copies": "it keeps the signs of a fifth of each delta"},
}
