"""A mask for each model."""

from __future__ import annotations

from golden.case import Case

ZERO2 = [0, 0]
ZERO4 = [0, 0, 0, 0]
CLASH = [[4, -3, 1, 0], [-2, 5, 2, 1]]
TWO_ZERO = {"a": [0, 0], "b": [0, 0]}
TWO = {"a": [4, 3], "b": [1, 2]}

# Sums 2, 2, 4, 0: elected 4, 5, 3 and, for a sum of 0, nothing.
TASKS = [[4, -3, 1, 2], [-2, 5, 3, -2]]
SPLIT = [{"a": [4, -3], "b": [1, 2]}, {"a": [-2, 5], "b": [3, -2]}]

# The cases of these were made by the authors' code, in float64: emr_merge of EMR_Merging's main_emr_merging.py, and
# generate_task_masks of tall_masks.
BASE = [[2.375, 1.125, 1.625, -1.75], [1.25, 0.625, 1.5, 0.875]]
THREE = [
    [[2.375, 2.125, 3.875, -1.75], [0.5, -1.25, 4.125, 0.875]],
    [[4.75, -0.125, 1.625, -1.75], [1.25, 1.75, 3.25, 0.875]],
    [[2.375, 2.625, 1.625, -0.5], [-0.625, 0.75, 1.5, 0.875]],
]
RESCALER = 8.5 / 10.125  # of the first

GOLDEN: dict[str, list[Case]] = {
    "emr": [
        Case(TASKS, [4, 5, 3, 0], base=ZERO4),
        Case([[5, -2, 2, 3], [-1, 6, 4, -1]], [3, 3.5, 2.5, 1], {"scale": 0.5}, base=[1, 1, 1, 1]),
        # The first has the signs of 4 and 3, 7 in all, where it had 10; the second of 5 and 3, where it had 12.
        Case(TASKS, [40 / 7, 0, 30 / 7, 0], {"task": 1}, base=ZERO4),
        Case(TASKS, [0, 15, 9, 0], {"task": 2, "scale": 2}, base=ZERO4),
        # Over the whole model, the same; tensor by tensor 7/4 and 3/3.
        Case(SPLIT, {"a": [40 / 7, 0], "b": [30 / 7, 0]}, {"task": 1}, base=TWO_ZERO),
        Case(SPLIT, {"a": [7, 0], "b": [3, 0]}, {"task": 1, "scope": "tensor"}, base=TWO_ZERO),
        Case(THREE, [[4.75, 2.625, 3.875, -0.5], [-0.625, -1.25, 4.125, 0.875]], base=BASE),
        Case(
            THREE,
            [
                [2.375, 1.125 + 1.5 * RESCALER, 1.625 + 2.25 * RESCALER, -1.75],
                [1.25 - 1.875 * RESCALER, 0.625 - 1.875 * RESCALER, 1.5 + 2.625 * RESCALER, 0.875],
            ],
            {"task": 1},
            base=BASE,
        ),
        # Nothing of a model is left: nothing to rescale
        Case([[1, 1], [-3, -3]], [0, 0], {"task": 1}, base=ZERO2),
    ],
    "consensus_ta": [
        # τ = 2 2 3 1. The first needs all but the last (0 < 0.4·1), the second all.
        Case(CLASH, [2, 2, 3, 0], base=ZERO4),
        # With λ = 1 the first needs only the first (3 < 5, 1 < 2), the second all but the first (2 < 4): no two agree…
        Case(CLASH, [0, 0, 0, 0], {"mask_lambda": 1}, base=ZERO4),
        Case(CLASH, [2, 2, 3, 1], {"mask_lambda": 1, "agreement": 1}, base=ZERO4),
        # …unless one has another λ.
        Case(CLASH, [2, 0, 0, 0], {"mask_lambda": [1, 0.4]}, base=ZERO4),
        Case(CLASH, [0, 2, 3, 0], {"mask_lambda": [0.4, 1]}, base=ZERO4),
        # τ = 3 −0.5 2 0.5: the first needs 4 ≥ 1, 3 ≥ 2.5, 1 ≥ 1; the second (2 < 5, 5 < 5.5) 2 ≥ 0, 1 ≥ 0.5
        Case(
            [[5, -2, 2, 1], [-1, 6, 3, 2]],
            [1, 1, 5, 1],
            {"weight": [1, 0.5], "mask_lambda": 1, "scale": 2},
            base=[1, 1, 1, 1],
        ),
        # As near as the base is near enough: |1| ≥ |2 − 1|
        Case([[1], [1]], [2], {"mask_lambda": 1}, base=[0]),
        Case(CLASH, [2, 2, 3, 1], {"mask_lambda": 100, "agreement": 0}, base=ZERO4),
        Case(THREE, [[2.375, 2.375, 1.625, -1.75], [1.25, 0, 5.875, 0.875]], {"mask_lambda": 0.6}, base=BASE),
    ],
    "consensus_ties": [
        # Kept [4 −3 0 0] and [−2 5 2 0], all elect +: τ = 4 5 2 0. The first needs all but the second (3 < 3.2), the
        # second all but the first (2 < 2.4).
        Case(CLASH, [0, 0, 2, 0], {"density": 0.5}, base=ZERO4),
        # 3 ≥ 2 and 2 ≥ 1.5
        Case(CLASH, [8, 10, 4, 0], {"density": 0.5, "mask_lambda": 0.25, "scale": 2}, base=ZERO4),
        # Votes 4−6, −3+15, 6, 0: τ = −6 15 6 0. The first needs no first (4 < 5), no second (3 < 9), no third (1 < 2.5)
        Case(
            CLASH,
            [-6, 15, 6, 0],
            {"density": 0.5, "mask_lambda": 0.5, "weight": [1, 3], "agreement": 1},
            base=ZERO4,
        ),
        Case(CLASH, [0, 0, 0, 0], {"density": 0.5, "mask_lambda": 0.5, "weight": [1, 3]}, base=ZERO4),
        # Half of the whole model, or of each tensor
        Case([TWO], {"a": [4, 3], "b": [0, 0]}, {"density": 0.5, "agreement": 1}, base=TWO_ZERO),
        Case([TWO], {"a": [4, 0], "b": [0, 2]}, {"density": 0.5, "agreement": 1, "scope": "tensor"}, base=TWO_ZERO),
        # What is trimmed has no vote: kept 2, 3 and 3, which nothing opposes
        Case([[2, 1], [-1.2, 3], [-1.3, 3]], [2, 6], {"density": 0.5, "agreement": 1}, base=ZERO2),
        # A fifth of five is one.
        Case([[4, 3, 2, 1, 0]], [4, 0, 0, 0, 0], {"agreement": 1}, base=[0, 0, 0, 0, 0]),
    ],
    "tall_masks": [
        # The sums, and the masks of consensus_ta
        Case(CLASH, [2, 2, 3, 1], base=ZERO4),
        Case(CLASH, [2, 0, 0, 0], {"task": 1, "mask_lambda": 1}, base=ZERO4),
        Case(CLASH, [0, 4, 6, 2], {"task": 2, "mask_lambda": [0, 1], "scale": 2}, base=ZERO4),
        Case(CLASH, [2, 2, 3, 0], {"task": 1}, base=ZERO4),
        Case(CLASH, [3, -0.5, 2, 0], {"task": 1, "mask_lambda": 1, "weight": [1, 0.5]}, base=ZERO4),
        Case(THREE, [[4.75, 1.125, 1.625, -1.75], [1.25, 0, 5.875, 0.875]], {"mask_lambda": 0.6, "task": 2}, base=BASE),
        # What TIES makes of half, and the masks of consensus_ties
        Case(CLASH, [4, 5, 2, 0], {"merged_by": "ties", "density": 0.5}, base=ZERO4),
        Case(CLASH, [4, 0, 2, 0], {"merged_by": "ties", "density": 0.5, "task": 1}, base=ZERO4),
        Case(CLASH, [0, 5, 2, 0], {"merged_by": "ties", "density": 0.5, "task": 2}, base=ZERO4),
        Case(
            [TWO],
            {"a": [4, 0], "b": [0, 2]},
            {"merged_by": "ties", "density": 0.5, "scope": "tensor", "task": 1},
            base=TWO_ZERO,
        ),
        Case([TWO], {"a": [4, 3], "b": [0, 0]}, {"merged_by": "ties", "density": 0.5, "task": 1}, base=TWO_ZERO),
    ],
    "localize_and_stitch": [
        # [4 −3] and [−2 5]: averaged where they overlap
        Case([[4, -3, 1, 0], [-2, 5, 0, 1]], [1, 1, 0, 0], {"density": 0.5}, base=ZERO4),
        # …by weight: (4 − 6)/4, (−3 + 15)/4
        Case(
            [[5, -2, 2, 1], [-1, 6, 1, 2]],
            [0, 7, 1, 1],
            {"density": 0.5, "weight": [1, 3], "scale": 2},
            base=[1, 1, 1, 1],
        ),
        # 4 and 5, which do not: each whole, whatever its weight
        Case([[4, -3, 1, 0], [-2, 5, 0, 1]], [4, 5, 0, 0], {"density": 0.25, "weight": [1, 3]}, base=ZERO4),
        # By default a twentieth; the largest all the same
        Case([[4, -3, 1, 0], [-2, 5, 0, 1]], [4, 5, 0, 0], base=ZERO4),
        # An unchanged entry is in no mask: not 2/2 and 4/2
        Case([[2, 0], [0, 4]], [2, 4], {"density": 1}, base=ZERO2),
        Case([TWO], {"a": [4, 3], "b": [0, 0]}, {"density": 0.5}, base=TWO_ZERO),
        Case([TWO], {"a": [4, 0], "b": [0, 2]}, {"density": 0.5, "scope": "tensor"}, base=TWO_ZERO),
        # Weights that cancel leave the base; those equal to the threshold are all kept.
        Case([[2, -2], [4, 0]], [0, -2], {"density": 0.5, "weight": [1, -1]}, base=ZERO2),
    ],
}

EXCEPT: dict[str, dict[str, str]] = {
    "consensus_ties": {"copies": "by default TIES keeps a fifth of each delta"},
    "localize_and_stitch": {"copies": "by default it keeps a twentieth of each delta"},
}
