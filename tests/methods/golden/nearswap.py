"""One model taken toward, or beyond, another."""

from __future__ import annotations

from golden.case import Case

GOLDEN: dict[str, list[Case]] = {
    "nearswap": [
        # δ = ½ −½ 2 −4 0: what is nearer than 1 becomes the model's; the others move by 1.
        Case([[1.5, 0.5, 3, -3, 1]], [1.5, 0.5, 2, 0, 1], {"t": 1}, base=[1, 1, 1, 1, 1]),
        # mergekit 0.1.5 on the same numbers: w = t/|δ| = ¼ of −4, 1/40 of 40; 1 of what is nearer.
        Case([[-3, 41, 1.25, 0]], [0, 2, 1.25, 0], {"t": 1}, base=[1, 1, 1, 0]),
        Case([[2, 4]], [1, 1], {"t": 0}, base=[1, 1]),
    ],
    "expo": [
        # δ = 2 −4 0: half of it beyond the model
        Case([[3, -3, 1]], [4, -5, 1], base=[1, 1, 1]),
        # … a tenth, and the whole; not α·δ from the base, which would give 1.2 and 3
        Case([[3, -3, 1]], [3.2, -3.4, 1], {"alpha": 0.1}, base=[1, 1, 1]),
        Case([[3, -3, 1]], [5, -7, 1], {"alpha": 1}, base=[1, 1, 1]),
        # Halfway back, and at the base
        Case([[3, -3, 1]], [2, -1, 1], {"alpha": -0.5}, base=[1, 1, 1]),
        Case([[3, -3, 1]], [1, 1, 1], {"alpha": -1}, base=[1, 1, 1]),
    ],
}

EXCEPT: dict[str, dict[str, str]] = {
    "nearswap": {
        "scaled": "t is a distance",
        "copies": "it goes from the base toward the model",
        "order": "it takes one model",
        "scale 0": "it has no scale",
    },
    "expo": {"copies": "it goes beyond the model", "order": "it takes one model", "scale 0": "it has no scale"},
}
