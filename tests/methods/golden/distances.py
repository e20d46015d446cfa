"""By lengths of deltas and distances between models."""

from __future__ import annotations

from golden.case import Case

ZERO2 = [0, 0]
TRIANGLE = [[-3, 0], [3, 0], [0, 4]]
IN_PARTS = [{"a": [-3], "b": [0]}, {"a": [3], "b": [0]}, {"a": [0], "b": [4]}]
TWO = [{"a": [1], "b": [2]}, {"a": [3], "b": [1]}]
TWO_ZERO = {"a": [0], "b": [0]}

GOLDEN: dict[str, list[Case]] = {
    "geometric_median": [
        # Where all sides are seen under 120°: tan 60° = 3/√3 (the mean is at 4/3, the median of each entry at 0)
        Case(TRIANGLE, [0, 1.7320508]),
        # Nowhere, for an angle of more than 120°: that corner
        Case([[-2, 0], [2, 0], [0, 0.5]], [0, 0.5]),
        # Half of the weight or more: that model. Of two of equal weight: halfway.
        Case([[-3, 0], [0, 4], [3, 0]], [3, 0], {"weight": [1, 1, 3]}),
        Case([[-3, 0], [0, 4], [3, 0]], [3, 0], {"weight": [0, 1, 1.5]}),
        Case([[1, 5], [3, 1]], [2, 3]),
        # A copy counts twice.
        Case([[5, 5], [1, 2], [1, 2]], [1, 2]),
        # No step: the weighted mean, here (−3 + 4.5)/3.5 and 4/3.5. One: from [0 4/3] at the distances √(9 + 16/9),
        # twice, and 8/3, to 4·⅜ / (⅜ + 2/√(9 + 16/9))
        Case(TRIANGLE, [0.42857143, 1.1428571], {"max_iter": 0, "weight": [1, 1.5, 1]}),
        Case(TRIANGLE, [0, 1.5240685], {"tol": 10}),
        # Begins at the mean, which is the second model: on from there, to where 1 + 1 − 1 = 2(3 − x)/√((3 − x)² + 1)
        Case([[-9, 0], [0, 0], [3, 1], [3, 0], [3, -1]], [2.4226497, 0]),
        # Its first step: of the one to 1.8974/(1/9 + 2/√10 + 1/3) the part 1 − 1/1.8974, for the pull is 6/√10 = 1.8974
        Case([[-9, 0], [0, 0], [3, 1], [3, 0], [3, -1]], [0.8332869, 0], {"max_iter": 1}),
        Case([[0, 0], [0, 0]], [0, 0]),
        # Each tensor: the middle one; the whole model: as the triangle
        Case(IN_PARTS, {"a": [0], "b": [0]}),
        Case(IN_PARTS, {"a": [0], "b": [1.7320508]}, {"scope": "model"}),
    ],
    "metagpt": [
        # Squares 9 and 16: 0.36·[3 0] + 0.64·[0 4], doubled, on the base (by lengths: 3/7, 4/7)
        Case([[4, 1], [1, 5]], [3.16, 6.12], {"scale": 2}, base=[1, 1]),
        # The whole model: squares 1 + 4 and 9 + 1, so ⅓ and ⅔. Tensor by tensor: 1 and 9, 4 and 1.
        Case(TWO, {"a": [7 / 3], "b": [4 / 3]}, base=TWO_ZERO),
        Case(TWO, {"a": [2.8], "b": [1.8]}, {"scope": "tensor"}, base=TWO_ZERO),
        Case([ZERO2, ZERO2], ZERO2, base=ZERO2),
    ],
    "varm": [
        # 1 and 9, 4 and 1: always tensor by tensor
        Case(TWO, {"a": [2.8], "b": [1.8]}, base=TWO_ZERO),
        Case([[4, 1], [1, 5]], [1.54, 2.28], {"scale": 0.5}, base=[1, 1]),
        # A model that did not change has no weight (equal weights, as in the official code, would give [2 1.5]).
        Case([[1, 1], [3, 2]], [3, 2], base=[1, 1]),
    ],
    "perpendicular": [
        # Of [3 4], [0 4] is perpendicular to [2 0]: [2 0] + ½[0 4], on the base
        Case([[3, 1], [4, 5]], [3, 3], {"weight": [1, 0.5]}, base=[1, 1]),
        # The component alone; and of the other to this one: [2 0] − 6/25·[3 4], doubled
        Case([[2, 0], [3, 4]], [0, 4], {"weight": [0, 1]}, base=ZERO2),
        Case([[3, 4], [2, 0]], [2.56, -1.92], {"weight": [0, 1], "scale": 2}, base=ZERO2),
        # To nothing all is perpendicular; of what is parallel, nothing.
        Case([[0, 0], [3, 4]], [3, 4], base=ZERO2),
        Case([[1, 2], [2, 4]], [1, 2], base=ZERO2),
    ],
    "add_difference": [
        # [2 5 1] − [1 1 3] = [1 4 −2]
        Case([[2, 5, 1], [1, 1, 3]], [2, 5, -1], base=[1, 1, 1]),
        Case([[2, 5, 1], [1, 1, 3]], [10.5, 2, -1], {"scale": 0.5}, base=[10, 0, 0]),
    ],
}

EXCEPT: dict[str, dict[str, str]] = {
    "perpendicular": {
        "order": "the second model gives only what the first has not",
        "copies": "the second of two copies adds nothing, so half a delta is left of weights of one half",
    },
    "add_difference": {
        "order": "it goes from the second model to the first",
        "copies": "two copies have no difference: the base",
    },
}
