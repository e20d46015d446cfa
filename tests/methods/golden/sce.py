"""Selected by variance, weighted by squares, minority signs erased."""

from __future__ import annotations

from golden.case import Case

ZERO4 = [0, 0, 0, 0]
# Squared differences 36, 64, 1, 0: three entries vary.
PAIR = [[4, -3, 1, 0], [-2, 5, 2, 0]]
TINY = 2.0**-14

# Made by mergekit 0.1.5 from these, in float64. Variances 1.25 1.43 1.13 0.35 / 0.59 1.56 1.19 0: seven vary.
BASE = [[2.375, 1.125, 1.625, -1.75], [1.25, 0.625, 1.5, 0.875]]
THREE = [
    [[2.375, 2.125, 3.875, -1.75], [0.5, -1.25, 4.125, 0.875]],
    [[4.75, -0.125, 1.625, -1.75], [1.25, 1.75, 3.25, 0.875]],
    [[2.375, 2.625, 1.625, -0.5], [-0.625, 0.75, 1.5, 0.875]],
]

GOLDEN: dict[str, list[Case]] = {
    "sce": [
        # Weights 26 and 33 of 59; signs + + + +: 4, 5, (26·1 + 33·2) / 59, none
        Case(PAIR, [4, 5, 92 / 59, 0], base=ZERO4),
        Case(PAIR, [2, 2.5, 46 / 59, 0], {"scale": 0.5}, base=ZERO4),
        # ⌊0.5·3⌋ = 1 is selected (of four it would be 2): the second; −3 + 5 elects +
        Case(PAIR, [0, 5, 0, 0], {"select_topk": 0.5}, base=ZERO4),
        # …for the weights alone, 9 and 25 of 34: (9·1 + 25·2) / 34
        Case(PAIR, [4, 5, 59 / 34, 0], {"select_topk": 0.5, "select_for": "weights"}, base=ZERO4),
        Case(PAIR, [4, 5, 59 / 34, 0], {"select_topk": 0.5, "variant": "official"}, base=ZERO4),
        # ⌊0.3·3⌋ = 0: nothing to merge, or equal weights
        Case(PAIR, [0, 0, 0, 0], {"select_topk": 0.3}, base=ZERO4),
        Case(PAIR, [4, 5, 1.5, 0], {"select_topk": 0.3, "variant": "official"}, base=ZERO4),
        # However small the deltas, the weights are the same (mergekit's become equal: 1.5 for 92/59).
        Case(
            [[TINY * x for x in delta] for delta in PAIR],
            [TINY * x for x in (4, 5, 92 / 59, 0)],
            base=ZERO4,
        ),
        # Equal models vary nowhere, whatever 3·0.34² − (0.34 + 0.34 + 0.34)²/3 is rounded: with a fraction to select, none is.
        Case([[-0.34, 0.59], [-0.34, 0.59], [-0.34, 0.59]], [-0.34, 0.59], base=[0, 0]),
        Case([[-0.34, 0.59], [-0.34, 0.59], [-0.34, 0.59]], [0, 0], {"select_topk": 0.99}, base=[0, 0]),
        # A sum of zero elects +.
        Case([[2, 1], [-2, 1]], [2, 1], base=[0, 0]),
        Case(
            THREE,
            [[4.75, 2.2756410256410255, 3.875, -0.5], [0.1610576923076925, -1.25, 3.7717450765864333, 0.875]],
            base=BASE,
        ),
        # ⌊0.5·7⌋ = 3 and ⌊0.3·7⌋ = 2
        Case(
            THREE,
            [[4.75, 2.2920506912442393, 1.625, -1.75], [1.25, -1.25, 1.5, 0.875]],
            {"select_topk": 0.5},
            base=BASE,
        ),
        Case(
            THREE,
            [[2.375, 2.2920506912442393, 1.625, -1.75], [1.25, -1.25, 1.5, 0.875]],
            {"select_topk": 0.3},
            base=BASE,
        ),
        Case(THREE, BASE, {"select_topk": 0.05}, base=BASE),
    ],
}
