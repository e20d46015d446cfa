"""Averages along a trajectory, and the median."""

from __future__ import annotations

from golden.case import Case

GOLDEN: dict[str, list[Case]] = {
    "swa": [
        Case([[1, -4], [5, 0], [9, 1]], [5, -1]),
        Case([[2, -4]], [2, -4]),
    ],
    "ema": [
        # α = ½: the oldest ¼, the next ¼, the newest ½ (α(1−α)² for the oldest would be ⅛)
        Case([[4, 8], [8, 0], [2, -2]], [4, 1], {"alpha": 0.5}),
        # α = 0.2: 0.8·10 + 0.2·20; then 0.8·12 + 0.2·30 (the newest has the small share)
        Case([[10], [20], [30]], [15.6]),
        # α of 1 is the newest, of 0 the oldest
        Case([[10, 1], [30, 2]], [30, 2], {"alpha": 1}),
        Case([[10, 1], [30, 2]], [10, 1], {"alpha": 0}),
    ],
    "wma": [
        # (1·4 + 2·8 + 3·2) / 6 and (1·8 + 2·0 − 3·2) / 6; the other way round, 5 and 3.67
        Case([[4, 8], [8, 0], [2, -2]], [4.3333333, 0.3333333]),
        # (1·10 + 2·40) / 3: the oldest has 1, not 0
        Case([[10], [40]], [30]),
    ],
    "median": [
        # The middle of three; their means would be 4, −1 and 0.
        Case([[1, -4, 0], [9, 1, 5], [2, 0, -5]], [2, 0, 0]),
        # Of four, halfway between the middle two
        Case([[1, -8], [3, 1], [100, 2], [2, 3]], [2.5, 1.5]),
        Case([[1, -8], [3, 1]], [2, -3.5]),
        Case([[3, 1]], [3, 1]),
    ],
}

EXCEPT: dict[str, dict[str, str]] = {
    "ema": {"order": "the newest checkpoint is the last"},
    "wma": {"order": "the newest checkpoint counts most"},
}
