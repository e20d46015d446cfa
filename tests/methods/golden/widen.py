"""By how far columns change their lengths and directions."""

from __future__ import annotations

from golden.case import Case

# Columns of length 5. The first model turns the first by 90° and doubles it, makes the second 6 long, and turns the
# third by cos = 0.8; the other turns the first by cos = 0.96, doubles the second and turns it by cos = 0.8, and makes
# the third 7 long and turns it by 90°. Ranks of |Δlength|: 2 1 0 and 0 2 1; of the turn: 2 0 1 and 0 1 2.
BASE = [[3, 0, 5], [4, 5, 0]]
TWO = [[[8, 0, 4], [-6, 6, 3]], [[4, 6, 0], [3, 8, 7]]]

GOLDEN: dict[str, list[Case]] = {
    "widen": [
        # Ranks of 2 are above the mean of 1, and count 1. Else the softmax of ranks/3 over the models: 1/(1 + e^⅔) =
        # 0.3392436, 1/(1 + e^⅓) = 0.4174298, and 0.5825702. Means of the two scores: [1 0.4174298 0.4174298] and
        # [0.3392436 0.7912851 0.7912851]. First column: [3 4] + [5 −10] + 0.3392436·[1 −1].
        Case(TWO, [[8.3392436, 4.7477106, 0.6261447], [-6.3392436, 7.7912851, 6.7912851]], base=BASE),
        # Each row is a vector: the transpose gives the transpose.
        Case(
            [[[8, -6], [0, 6], [4, 3]], [[4, 3], [6, 8], [0, 7]]],
            [[8.3392436, -6.3392436], [4.7477106, 7.7912851], [0.6261447, 6.7912851]],
            {"vectors": "rows"},
            base=[[3, 4], [0, 5], [5, 0]],
        ),
        # A matrix each, of the last two axes
        Case(
            [[TWO[0]], [TWO[1]]],
            [[[8.3392436, 4.7477106, 0.6261447], [-6.3392436, 7.7912851, 6.7912851]]],
            base=[BASE],
        ),
        # Nothing is above three times the mean: the first column has 1 − 0.3392436 of the first model.
        Case(
            TWO,
            [[6.6430255, 3.4954212, 1.6697192], [-2.9468073, 7.1651404, 5.3302808]],
            {"ratio": 3},
            base=BASE,
        ),
        # What is important counts twice: [2 …] of the first model, and ½(2 + 0.5825702) of the other.
        Case(
            TWO,
            [[13.3392436, 7.7477106, -1.8738553], [-16.3392436, 9.2912851, 10.2912851]],
            {"calibration": 2},
            base=BASE,
        ),
        # The first column is three times as long, the other turned, if less far away: each is important once, ½(2 + 1).
        Case([[[9, 3], [12, 4]]], [[12, 4.5], [16, 3.5]], {"calibration": 2}, base=[[3, 0], [4, 5]]),
        # A vector: 2 and 1 are above the means of |δ|, 1 and ⅓. The first entry has e/(1 + e) of 1.
        Case([[1, 0, 2], [0, -1, 0]], [0.7310586, -1, 2], base=[0, 0, 0]),
        # One entry is its own mean: the average
        Case([3, 3], 3, base=1),
        # A column of zeros points nowhere, and turns least when it stays so.
        Case([[[0, 2], [0, 2]], [[0, 1], [0, 3]]], [[0, 2], [0, 4]], base=[[0, 1], [0, 1]]),
    ],
}

EXCEPT: dict[str, dict[str, str]] = {"widen": {"scaled": "of vectors it takes the softmax of the lengths themselves"}}
