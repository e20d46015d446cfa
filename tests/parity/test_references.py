"""The float64 references of the benchmark give mergekit's numbers too, so a share counted with them means something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest

if TYPE_CHECKING:
    from types import ModuleType

GOLDEN = np.load(Path(__file__).parent / "golden.npz")
SHAPES = json.loads(GOLDEN["meta"].tobytes())["recipes"]["ties"]["tensors"]


def trimmed(references, base, experts, densities):
    thresholds = [references.threshold(x - base, p) for x, p in zip(experts, densities, strict=True)]
    return [np.where(np.abs(x - base) >= t, x - base, 0) for x, t in zip(experts, thresholds, strict=True)]


# The same numbers as in recipes/*.yml; `r` is the module, b the base, x the three experts.
CASES = {
    "linear_weighted": lambda r, _, x: r.linear(x, [1, 0.5, 0.3]),
    "linear_unnormalised": lambda r, b, x: r.linear([b, *x[:2]], [0.2, 0.5, 0.4], normalize=False),
    "task_arithmetic": lambda r, b, x: r.task_arithmetic(b, x, [0.8, 0.5, -0.3], 0.7),
    "slerp_scalar": lambda r, _, x: r.slerp(x[0], x[1], 0.3),
    "ties": lambda r, b, x: r.ties(b, trimmed(r, b, x, [0.3] * 3), [1, 0.6, 0.4]),
    "ties_unnormalised": lambda r, b, x: r.ties(
        b, trimmed(r, b, x, [0.3, 0.5, 0.8]), [0.9, 0.5, 0.7], 0.8, normalize=False
    ),
    "ties_negative": lambda r, b, x: r.ties(b, trimmed(r, b, x, [0.3] * 3), [1, -0.5, 0.7], normalize=False),
    "model_stock": lambda r, b, x: r.model_stock(b, x),
    "karcher": lambda r, _, x: r.karcher(x),
}


@pytest.mark.parametrize("recipe", CASES)
def test_reference_agrees_with_mergekit(recipe: str, references: ModuleType, inputs) -> None:
    compared = 0
    for name, (shape, *_) in SHAPES.items():
        if not inputs.is_kept(name):
            continue
        base, *experts = (inputs.tensor(model, name, tuple(shape)).astype(np.float64) for model in inputs.MODELS)
        expected = GOLDEN[f"{recipe}/{name}"]
        actual = inputs.kept_rows(CASES[recipe](references, base, experts))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * np.abs(expected).max(), err_msg=name)
        compared += 1
    assert compared == 12


def test_every_answer_of_ties_is_one_of_the_open_choices(references: ModuleType) -> None:
    base = np.zeros(4)
    expert = np.array([3.0, -1.0, 1.0, 0.5])
    limit = references.threshold(expert, 0.5)
    answers = list(references.ties_answers(base, [expert], [1.0], [limit]))
    assert [answer.tolist() for answer in answers] == [[3, -1, 1, 0], [3, 0, 0, 0]]


def test_threshold_over_a_model_is_that_of_its_pieces_laid_end_to_end(references: ModuleType) -> None:
    noise = np.random.default_rng(3)
    pieces = [noise.standard_normal(n).astype(np.float32) * s for n, s in ((1000, 1), (777, 0.01), (50, 30))]
    for density in (0.001, 0.2, 0.5, 0.99):
        whole = references.threshold(np.concatenate(pieces).astype(np.float64), density)
        assert references.model_thresholds(lambda: pieces, density) == whole


def test_rounding_to_bfloat16_is_done_once(references: ModuleType) -> None:
    values = np.random.default_rng(5).standard_normal(4096).astype(np.float32)
    once = references.to_bfloat16(values.astype(np.float64))
    assert np.array_equal(once, values.astype(ml_dtypes.bfloat16).astype(np.float64))
    # Just above the middle of two bfloat16 numbers by less than float32 can tell: up, and not to even.
    assert references.to_bfloat16(np.array([1 + 2**-8 + 2**-40]))[0] == 1 + 2**-7
