"""By importance."""

from __future__ import annotations

from golden.case import Case

GOLDEN: dict[str, list[Case]] = {
    "arcee_fusion": [
        # One row, so one KL: |δ| = 0 1 2 3 20 has quartiles 1, 2, 3; 2 + 1.5·2 = 5 leaves the 20.
        Case([[1, 2, 3, 4, 21]], [1, 1, 1, 1, 21], base=[1, 1, 1, 1, 1]),
        # The first row is shifted as a whole: the same softmax, so KL = 0 and no importance, large as |δ| is. Of
        # KL·[0 0 0 0 0 1 2 3 4 40] quartiles are 0, 0.5, 2.75; 0.5 + 1.5·2.75 = 4.625 leaves the 40. (By |δ| alone
        # nothing would be left: 50 + 1.5·56.75.)
        Case(
            [[[60, 60, 60, 60, 60], [1, 2, 3, 4, 40]]],
            [[0, 0, 0, 0, 0], [0, 0, 0, 0, 40]],
            base=[[0, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
        ),
        # All are equally important, so all are at the threshold, which counts as above it.
        Case([[1, -1, 1, -1]], [1, -1, 1, -1], base=[0, 0, 0, 0]),
    ],
}

EXCEPT: dict[str, dict[str, str]] = {
    "arcee_fusion": {
        "order": "it goes from the base to the model",
        "scaled": "it compares softmaxes, in which a scale matters",
    },
}
