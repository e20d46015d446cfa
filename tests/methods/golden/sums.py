"""Sums and selections entry by entry."""

from __future__ import annotations

from golden.case import Case

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
    "magmax": [
        # −3, −4, and of 2 and −2 the positive one; halved, on the base
        Case([[2, -3, 3], [-2, 3, -1]], [-0.5, -1, 2], base=[1, 1, 1]),
        Case([[-2, 3, -1], [2, -3, 3]], [-0.5, -1, 2], base=[1, 1, 1]),
        Case([[1, 0, -5], [-3, 0, 4]], [-3, 0, -5], {"scale": 1}, base=[0, 0, 0]),
    ],
}

EXCEPT: dict[str, dict[str, str]] = {
    "passthrough": {"order": "it takes one model"},
}
