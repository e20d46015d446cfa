"""Counted where models changed an entry."""

from __future__ import annotations

from golden.case import Case

ZERO5 = [0, 0, 0, 0, 0]
# Three, three, one, none, one changed it; the first model shares 2 entries and has 2 of its own.
AGENTS = [[4, -4, 1, 0, 0.5], [-2, 5, 0, 0, 0], [0, 1, 0, 0, 0]]
# The first model: in "a" one shared and one of its own, in "b" two of its own; the second: one shared, none of its own.
TWO_ZERO = {"a": [0, 0], "b": [0, 0, 0]}
TWO = [{"a": [4, 1], "b": [1, -1, 0]}, {"a": [2, 0], "b": [0, 0, 3]}]

# mergekit 0.1.5 made the cases of these, in float64.
BASE = [[2.375, 1.125, 1.625, -1.75], [1.25, 0.625, 1.5, 0.875]]
THREE = [
    [[2.375, 2.125, 3.875, -1.75], [0.5, -1.25, 4.125, 0.875]],
    [[4.75, -0.125, 1.625, -1.75], [1.25, 1.75, 3.25, 0.875]],
    [[2.375, 2.625, 1.625, -0.5], [-0.625, 0.75, 1.5, 0.875]],
]
THIRD = 1.125 + 1.25 / 3
REST = [-0.0625, 0.625 - 0.625 / 3, 3.6875, 0.875]

GOLDEN: dict[str, list[Case]] = {
    "ram": [
        # (4−2)/2, (−4+5+1)/3, and what one model alone changed whole
        Case(AGENTS, [1, 2 / 3, 1, 0, 0.5], base=ZERO5),
        Case([[5, -3, 2], [-1, 6, 1], [1, 2, 1]], [3, 7 / 3, 3], {"scale": 2}, base=[1, 1, 1]),
        # Only what is larger than 1: (4−2)/2, (−4+5)/2
        Case(AGENTS, [1, 0.5, 0, 0, 0], {"epsilon": 1}, base=ZERO5),
        # Larger than 1, 1.25 and 0.25: the third model's 1 counts again
        Case(AGENTS, [1, 2 / 3, 0, 0, 0], {"epsilon": 0.25, "relative": True}, base=ZERO5),
        # Below 1e-5 nothing counts, unless epsilon says so.
        Case([[1e-6, 0], [3e-6, 2e-6]], [0, 0], base=[0, 0]),
        Case([[0.5**20, 0], [3 * 0.5**20, 0.5**20]], [2 * 0.5**20, 0.5**20], {"epsilon": 0}, base=[0, 0]),
        Case(THREE, [[4.75, THIRD, 3.875, -0.5], REST], base=BASE),
        Case(
            THREE,
            [[4.75, 1.25, 3.875, -0.5], [-0.625, 0.25, 3.6875, 0.875]],
            {"epsilon": 1},
            base=BASE,
        ),
    ],
    "ramplus_tl": [
        # The ratio is 2/2, at most 0.2: ×1.02
        Case(AGENTS, [1, 2 / 3, 1.02, 0, 0.51], base=ZERO5),
        # At most 2: ×(1 + 0.5·1)
        Case(AGENTS, [2, 4 / 3, 3, 0, 1.5], {"r": 0.5, "alpha": 2, "scale": 2}, base=ZERO5),
        # Of what is larger than 1, the first has two shared, none of its own.
        Case(AGENTS, [1, 0.5, 0, 0, 0], {"epsilon": 1, "r": 5}, base=ZERO5),
        # Larger than 1/2 of 4, 5, 1: [4 −4], [5], [1]: one shared, one of its own; ×(1 + 5·0.2)
        Case(AGENTS, [8, 2 / 3, 0, 0, 0], {"epsilon": 0.49, "r": 5, "relative": True}, base=ZERO5),
        # In each tensor: "a" 1/1, "b" none shared
        Case(TWO, {"a": [3, 1.6], "b": [1, -1, 3]}, {"r": 0.6, "alpha": 1}, base=TWO_ZERO),
        Case(THREE, [[4.7975, THIRD, 3.92, -0.475], REST], base=BASE),
        Case(
            THREE,
            [[7.125, 1.25, 6.125, -0.1875], [-1.09375, 0.25, 3.6875, 0.875]],
            {"epsilon": 1, "r": 0.5, "alpha": 2},
            base=BASE,
        ),
        Case(THREE, [[5.640625, THIRD, 4.71875, -0.03125], REST], {"r": 0.5, "alpha": 0.75}, base=BASE),
    ],
    "ramplus": [
        # Over the whole model 1 shared to 3 own, and 1 to 1: ×(1 + 0.6/3) and ×(1 + 0.6)
        Case(TWO, {"a": [3, 1.2], "b": [1.2, -1.2, 4.8]}, {"r": 0.6, "alpha": 1}, base=TWO_ZERO),
        # …at most 0.2: ×1.12 for both
        Case(TWO, {"a": [3, 1.12], "b": [1.12, -1.12, 3.36]}, {"r": 0.6}, base=TWO_ZERO),
        Case(TWO, {"a": [3, 1.6], "b": [1, -1, 3]}, {"r": 0.6, "alpha": 1, "scope": "tensor"}, base=TWO_ZERO),
        # Of what is larger than 1 the first has one, shared; the second one shared and one own: ×1.02; halved
        Case(TWO, {"a": [1.5, 0], "b": [0, 0, 1.53]}, {"epsilon": 1, "scale": 0.5}, base=TWO_ZERO),
        # Larger than half of the model's largest, 4 and 3: 4 and 2 are shared, 3 is the second's own: 1 to 1, ×1.5
        Case(
            TWO,
            {"a": [3, 0], "b": [0, 0, 4.5]},
            {"epsilon": 0.5, "relative": True, "r": 0.5, "alpha": 1},
            base=TWO_ZERO,
        ),
        # …of the tensor's largest, 4 1 and 2 3: in "b" 1 and −1 count, and none is shared
        Case(
            TWO,
            {"a": [3, 0], "b": [1, -1, 3]},
            {"epsilon": 0.5, "relative": True, "r": 0.5, "alpha": 1, "scope": "tensor"},
            base=TWO_ZERO,
        ),
    ],
}

EXCEPT: dict[str, dict[str, str]] = {
    name: {"scaled": "epsilon is absolute, as in the paper, save with relative: true"}
    for name in ("ram", "ramplus", "ramplus_tl")
}
