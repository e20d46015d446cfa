"""By how models compete for an entry."""

from __future__ import annotations

from golden.case import Case

ZERO5 = [0, 0, 0, 0, 0]
# Mapped to [0, 1] by their own maximum of 2: u = [1 ¾ −½ ¼ 0] and [½ 1 −¾ −¼ ⅛]; Σδ = [3 3.5 −2.5 0 ¼]; N = 2.
RIVALS = [[2, 1.5, -1, 0.5, 0], [1, 2, -1.5, -0.5, 0.25]]
UNCUT = {"clip": 0, "scale": 1, "scope": "tensor"}

GOLDEN: dict[str, list[Case]] = {
    "pcb": [
        # e^(2u²)·tanh(δ·Σδ): [7.388965 3.080047 1.626652 0 0] and [1.640568 7.389044 3.076811 0 0.0644]. All take part,
        # so s is that over its maximum: [1 0.416844 0.220146 0 0], [0.222027 1 0.416402 0 0.008716].
        Case(RIVALS, [1.8183125, 1.8528970, -1.3270781, 0, 0.25], {**UNCUT, "ratio": 1}, base=ZERO5),
        # The upper half: from the medians 1.626652 and 1.640568, s = [1 0.252224 0 0 0], [0 1 0.249848 0 0]. The
        # second entry is (0.252224·1.5 + 1·2) / 1.252224.
        Case(RIVALS, [2, 1.8992895, -1.5, 0, 0], {**UNCUT, "ratio": 0.5}, base=ZERO5),
        # tanh(δ·Σu), Σu = [1.5 1.75 −1.25 0 ⅛]: 3.048059 and 7.375592 above medians 1.398583 and 1.492337
        Case(RIVALS, [2, 1.8915305, -1.5, 0, 0], {**UNCUT, "ratio": 0.5, "inter": "vision"}, base=ZERO5),
        # Σ tanh(uu'): e^1.125·(tanh 0.5625 + tanh 0.75) = 3.526783 between 0.994634 and e²·(tanh 1 + tanh ½) = 9.042072
        Case(RIVALS, [2, 1.8803285, -1.5, 0, 0], {**UNCUT, "ratio": 0.5, "inter": "pairwise"}, base=ZERO5),
        # … which the scale of the deltas does not change
        Case(
            [[value * 1024 for value in model] for model in RIVALS],
            [2048, 1925.4564, -1536, 0, 0],
            {**UNCUT, "ratio": 0.5, "inter": "pairwise"},
            base=ZERO5,
        ),
        # Magnitudes cut to [1, 1.5], the third and the second of five: u = [1 1 0 0 0], [0 1 1 0 0]
        Case(RIVALS, [1.5, 1.5, -1.5, 0, 0], {**UNCUT, "ratio": 0.5, "clip": 0.4}, base=ZERO5),
        # λ, and a weight each, which the score does not see: (0.252224·2·1.5 + 2·½) / 1.252224 = 1.402842 …
        Case(
            RIVALS,
            [4.8, 1.6834104, -0.9, 0, 0],
            {"clip": 0, "ratio": 0.5, "weight": [2, 0.5], "scope": "tensor"},
            base=ZERO5,
        ),
        # Over the whole model the scores of b are the lesser half, and b stays what it was; over each tensor they are not.
        Case(
            [{"a": [2, 1], "b": [0.5, 0.25]}],
            {"a": [2, 1], "b": [0, 0]},
            {**UNCUT, "ratio": 0.5, "scope": "model"},
            base={"a": [0, 0], "b": [0, 0]},
        ),
        Case(
            [{"a": [2, 1], "b": [0.5, 0.25]}],
            {"a": [2, 0], "b": [0.5, 0]},
            {**UNCUT, "ratio": 0.5},
            base={"a": [0, 0], "b": [0, 0]},
        ),
    ],
    "tatr": [
        # ½Ω = |δ₁||δ₂| = [2 2 0 4]: of these a quarter, the 4, is left out, though 3 is a larger delta than 2.
        Case([[1, 2, 0, -4], [2, 1, 3, -1]], [3, 3, 3, 0], {"quantile": 0.75, "scale": 1}, base=[0, 0, 0, 0]),
        # Entries equal to the threshold of 2 are left out; so one of four is kept, on a base of 1, with λ = 0.3.
        Case([[2, 3, 1, -3], [3, 2, 4, 0]], [1, 1, 1.9, 1], {"quantile": 0.5}, base=[1, 1, 1, 1]),
        # Three models: ½Ω = 1·2 + 1·3 + 2·3 = 11, 4·3 = 12 (of the first and the last), and 0 for a delta that is alone.
        # Of three entries one is left out. Signs do not matter; weights do not take part in Ω.
        Case(
            [[1, 4, 0], [-2, 0, 0], [3, 3, 9]],
            [1, 0, 9],
            {"quantile": 0.6, "scale": 1, "weight": [2, 2, 1]},
            base=[0, 0, 0],
        ),
        # A threshold of 0: without conflict nothing is left out.
        Case([[1, 0], [0, -3]], [1, -3], {"quantile": 0.5, "scale": 1}, base=[0, 0]),
        # Half of the whole model is b; half of each tensor is one entry.
        Case(
            [{"a": [9, 8], "b": [2, 1]}, {"a": [1, 1], "b": [1, 1]}],
            {"a": [0, 0], "b": [3, 2]},
            {"quantile": 0.5, "scale": 1},
            base={"a": [0, 0], "b": [0, 0]},
        ),
        Case(
            [{"a": [9, 8], "b": [2, 1]}, {"a": [1, 1], "b": [1, 1]}],
            {"a": [0, 9], "b": [0, 2]},
            {"quantile": 0.5, "scale": 1, "scope": "tensor"},
            base={"a": [0, 0], "b": [0, 0]},
        ),
    ],
}

EXCEPT: dict[str, dict[str, str]] = {
    "pcb": {
        "copies": "entries with low scores stay at the base",
        "scaled": "its scores are tanh of products of deltas, save with inter: pairwise",
    },
    "tatr": {"copies": "entries at which the copies conflict most stay at the base"},
}
