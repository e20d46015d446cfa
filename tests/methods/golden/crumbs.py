"""Kept from the middle, or a few of every block."""

from __future__ import annotations

from golden.case import Case
from golden.ties import THREE, THREE_BASE, VOTERS, ZERO3

ZERO6 = [0] * 6
ZERO8 = [0] * 8
FALLING = [[8, -7, 6, -5, 4, -3, 2, 1]]
ROWS = [[[4, -1, 3, 2], [1, 2, -4, 8]]]
ROWS_BASE = [[0] * 4, [0] * 4]
HALF = {"density": 0.5, "gamma": 0.25}
CLASH = [[4, -3, 1, 0], [-2, 5, 2, 1]]
ZERO4 = [0] * 4

GOLDEN: dict[str, list[Case]] = {
    "breadcrumbs": [
        # Of eight, two are outliers and four stay.
        Case(FALLING, [0, 0, 6, -5, 4, -3, 0, 0], {"weight": 1, **HALF}, base=ZERO8),
        # Six are to stay, so that two may go as outliers, not four; at density 1 none.
        Case(FALLING, [0, 0, 6, -5, 4, -3, 2, 1], {"weight": 1, "density": 0.75, "gamma": 0.5}, base=ZERO8),
        Case(FALLING, [8, -7, 6, -5, 4, -3, 2, 1], {"weight": 1, "gamma": 0.5}, base=ZERO8),
        # No outliers: the largest half; nothing at all, as half of one is none
        Case(FALLING, [8, -7, 6, -5, 0, 0, 0, 0], {"weight": 1, "density": 0.5, "gamma": 0}, base=ZERO8),
        Case(FALLING, ZERO8, {"weight": 1, "density": 0.124}, base=ZERO8),
        # All but one are outliers: the least one is the largest that is kept, too.
        Case(FALLING, [0, 0, 0, 0, 0, 0, 0, 1], {"weight": 1, "density": 0.125, "gamma": 1}, base=ZERO8),
        # One outlier, two stay: the second and third largest, 4 and 3; the first is equal to the second, and stays.
        Case([[4, -4, 3, 2, 2, 1]], [4, -4, 3, 0, 0, 0], {"weight": 1, "density": 1 / 3, "gamma": 1 / 6}, base=ZERO6),
        # Of 36, 18 is kept: doubled
        Case(FALLING, [0, 0, 12, -10, 8, -6, 0, 0], {"weight": 1, "rescale": True, **HALF}, base=ZERO8),
        # Of each row of four one goes, and two stay. 25 were the magnitudes, 11 are.
        Case(ROWS, [[0, 0, 3, 2], [0, 2, -4, 0]], {"weight": 1, "per": "row", **HALF}, base=ROWS_BASE),
        Case(ROWS, [[0, -1, 3, 2], [1, 2, -4, 0]], {"weight": 1, "per": "row", "gamma": 0.25}, base=ROWS_BASE),
        Case(
            ROWS,
            [[0, 0, 75 / 11, 50 / 11], [0, 50 / 11, -100 / 11, 0]],
            {"weight": 1, "per": "row", "rescale": "l1", **HALF},
            base=ROWS_BASE,
        ),
        # The two largest of the rest: no more than one entry is there to be kept, as the outliers go first.
        Case(
            ROWS,
            [[0, -1, 0, 0], [1, 0, 0, 0]],
            {"weight": 1, "per": "row", "density": 0.5, "gamma": 0.75},
            base=ROWS_BASE,
        ),
        Case(ROWS, [[0, 0, 0.6, 0.4], [0, 0.4, -0.8, 0]], {"variant": "paper", **HALF}, base=ROWS_BASE),
        # mergekit 0.1.5's merge_tensors, in float64
        Case(
            THREE,
            [[1.0125, -2.56875, 0.3, 3.0, -0.5, 0.625], [-0.19375, -0.975, 0.3375, 0.5, -0.725, 3.0]],
            {"weight": [1.0, 0.6, -0.3], "density": [0.5, 0.75, 0.34], "gamma": 0.1},
            base=THREE_BASE,
        ),
        Case(
            THREE,
            [
                [0.97882613, -2.7367047, 0.66874526, 1.7646635, -0.47007645, 0.86104466],
                [0.22240395, 0.14075798, -1.3977783, 0.46171236, 0.54854316, 3.0157363],
            ],
            {
                "weight": [1.0, 0.6, -0.3],
                "density": 0.8,
                "gamma": 0.3,
                "rescale": True,
                "normalize": True,
                "lambda": 0.7,
            },
            base=THREE_BASE,
        ),
        Case(
            THREE,
            [[0.5, -1.0, 0.0, 2.0, 1.0, -0.375], [1.0, 0.0, -2.1, 0.5, 0.25, 3.075]],
            {"weight": [1, 0.6, 0.8], "density": 0.1, "gamma": 0.95},
            base=THREE_BASE,
        ),
    ],
    "breadcrumbs_ties": [
        # One of four goes, two stay: [0 −3 1 0], [−2 0 2 0]. Votes −2 −3 3 0, summed
        Case(CLASH, [-2, -3, 3, 0], {"weight": 1, **HALF}, base=ZERO4),
        # A row of four is this tensor, and ranks alike are told by their place: of −2 and 2 the later is the greater.
        Case(CLASH, [-2, -3, 1.5, 0], {"weight": 1, "per": "row", "normalize": True, **HALF}, base=ZERO4),
        Case(CLASH, [-4, -6, 6, 0], {"weight": 1, "scale": 2, **HALF}, base=ZERO4),
        # 8 was the norm, 4 is; 10 was, 4 is: votes −5 −6 7
        Case(CLASH, [-5, -6, 7, 0], {"weight": 1, "rescale": "l1", **HALF}, base=ZERO4),
        Case(VOTERS, [6, -4, 8], {"weight": [1, 2, 1], "merge": "count", "vote": "total"}, base=ZERO3),
        # mergekit 0.1.5's merge_tensors, in float64
        Case(
            THREE,
            [[1.6875, -2.175, -1.75, 4.125, -0.5, 0.325], [2.5375, -0.975, 0.3375, 0.5, 1.85, 3.0]],
            {"weight": [1, 0.6, 0.8], "density": [0.5, 0.75, 0.34], "gamma": [0.1, 0.2, 0.05]},
            base=THREE_BASE,
        ),
        Case(
            THREE,
            [
                [2.1422872, -2.0249348, 0.0, 4.0575964, -1.0744681, 1.443609],
                [3.3466797, -2.2969925, 0.030471375, -0.1953125, 1.9663121, 3.0],
            ],
            {"weight": [1, 0.6, 0.8], "density": 0.6, "gamma": 0.15, "normalize": True, "rescale": True},
            base=THREE_BASE,
        ),
    ],
    "cabs": [
        # Of each pair the first model takes its larger, 4 and 1; of what is left, the second 5 and 1 (alone: 5 and 2).
        Case(CLASH, [4, 2.5, 1, 0.5], {"weight": [1, 0.5], "n": 1, "m": 2}, base=ZERO4),
        Case(CLASH, [-8, -5, -2, -1], {"weight": [1, 0.5], "n": 1, "m": 2, "scale": -2}, base=ZERO4),
        # The other way round: 5 and 2 first
        Case(CLASH[::-1], [4, 5, 2, 0], {"weight": 1, "n": 1, "m": 2}, base=ZERO4),
        # The last block of a row is short: 4, none; then 5 (−2 is taken), 1. Blocks end with their row.
        Case(CLASH, [4, 5, 0, 1], {"weight": 1, "n": 1, "m": 3}, base=ZERO4),
        Case([[[1, 2, 3], [4, 5, 6]]], [[0, 2, 3], [0, 5, 6]], {"weight": 1, "n": 1, "m": 2}, base=[[0] * 3, [0] * 3]),
        # All are taken, or none; where the first has nothing to keep, nothing is taken. By default all of so few stay.
        Case(CLASH, [4, -3, 1, 1], {"weight": 1, "n": 2, "m": 2}, base=ZERO4),
        Case(CLASH, ZERO4, {"weight": 1, "n": 0, "m": 2}, base=ZERO4),
        Case([[0, 0], [3, 1]], [3, 0], {"weight": 1, "n": 1, "m": 2}, base=[0, 0]),
        Case(CLASH, [4, -3, 1, 1], {"weight": 1}, base=ZERO4),
    ],
}

EXCEPT: dict[str, dict[str, str]] = {
    "cabs": {
        "order": "earlier models take their entries first",
        "copies": "no two models keep the same entry",
    },
}
