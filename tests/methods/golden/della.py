"""Dropped at random, small entries sooner; and kept from the middle, or in blocks."""

from __future__ import annotations

from golden.case import Case
from golden.ties import THREE, THREE_BASE, VOTERS, ZERO3

# Chances with density 0.5 and epsilon 0.4, by rank in the row: 0.1, 0.3667, 0.6333, 0.9. Seed 0 keeps of the first 4 and
# −4, of the second −2, 5, 3 and 4 (test_sparse.py works these masks out). DARE with 0.5 would keep 1 and 2 of the
# first, and ranks over the whole tensor 4, 1, 2 and −4.
RANKED = [[[4, -1, 3, 2], [1, 2, -4, 3]], [[-2, 5, 1, 3], [3, -1, 2, 4]]]
BASE = [[0] * 4, [0] * 4]
HALF = {"density": 0.5, "epsilon": 0.4}
# −2, 5, 3 and 4 divided by their chances
BY_CHANCE = [-60 / 11, 50 / 9, 90 / 19, 40 / 9]

GOLDEN: dict[str, list[Case]] = {
    "della": [
        # L1 norms were 20 and 21 and are 8 and 14: times 2.5 and 1.5. Votes 10 − 6 in the first entry, or 10 − 12.
        Case(RANKED, [[10, 7.5, 0, 4.5], [0, 0, -10, 6]], {"weight": [1, 2], **HALF}, base=BASE),
        Case(RANKED, [[-3, 7.5, 0, 4.5], [0, 0, -10, 6]], {"weight": [1, 4], **HALF}, base=BASE),
        Case(RANKED, [[10, 7.5, 0, 4.5], [0, 0, -10, 6]], {"weight": [1, 4], "vote": "total", **HALF}, base=BASE),
        # As they are; the first entry's vote is even, 4 − 4, so it is plus. Summed, and times −1
        Case(
            RANKED,
            [[-4, -10, 0, -6], [0, 0, 4, -8]],
            {"weight": [1, 2], "rescale": "none", "normalize": False, "scale": -1, **HALF},
            base=BASE,
        ),
        # Divided by the chances: votes 40/9 − 2·60/11 and so on
        Case(
            RANKED,
            [[BY_CHANCE[0], BY_CHANCE[1], 0, BY_CHANCE[2]], [0, 0, -40 / 9, BY_CHANCE[3]]],
            {"weight": [1, 2], "rescale": "probability", **HALF},
            base=BASE,
        ),
        # The same, times 1.1
        Case(
            RANKED,
            [[-6, 55 / 9, 0, 99 / 19], [0, 0, -44 / 9, 44 / 9]],
            {"variant": "paper", **HALF},
            base=BASE,
        ),
        # A vector is one row: the first of the two again, whose numbers are others: 4 stays.
        Case(VOTERS, [6, -4, 4], {"weight": [1, 2, 1], "vote": "total"}, base=ZERO3),
        Case(VOTERS, [-4, 2.5, 8], {"weight": [1, 2, 1], "merge": "count"}, base=ZERO3),
        Case(RANKED, BASE, {"weight": 1, "density": 0}, base=BASE),
        # mergekit 0.1.5's merge_tensors, in float64, nothing dropped
        Case(
            THREE,
            [
                [1.3263889, -1.734375, -2.1875, 3.4861111, 0.055555556, 0.09375],
                [2.0982143, 0.56944444, -0.5390625, 2.8125, 1.4861111, 0.625],
            ],
            {"weight": [1, 0.6, 0.8]},
            base=THREE_BASE,
        ),
    ],
    "della_linear": [
        # 10 − 2·3 in the first entry; a third of all; as they are: 4 − 2·2
        Case(RANKED, [[4, 15, 0, 9], [0, 0, -10, 12]], {"weight": [1, 2], **HALF}, base=BASE),
        Case(RANKED, [[4 / 3, 5, 0, 3], [0, 0, -10 / 3, 4]], {"weight": [1, 2], "normalize": True, **HALF}, base=BASE),
        Case(RANKED, [[0, 10, 0, 6], [0, 0, -4, 8]], {"weight": [1, 2], "rescale": "none", **HALF}, base=BASE),
        # Half of 40/9 − 60/11 and so on, times 1.1
        Case(RANKED, [[-5 / 9, 55 / 18, 0, 99 / 38], [0, 0, -22 / 9, 22 / 9]], {"variant": "paper", **HALF}, base=BASE),
        # mergekit 0.1.5's merge_tensors, in float64, nothing dropped
        Case(
            THREE,
            [[0.90625, -1.0625, -0.56875, 2.775, 0.20625, -0.425], [1.33125, 0.025, -0.88125, 0.9, 1.175, 1.925]],
            {"weight": [1, 0.6, 0.8], "lambda": 0.5},
            base=THREE_BASE,
        ),
    ],
}
