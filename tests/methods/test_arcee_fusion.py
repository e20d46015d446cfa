"""The quartiles of importances are exact, however large the tensor and however it is cut."""

from __future__ import annotations

import numpy as np
import pytest

from plait import ops
from plait.methods import find_method


def quartiles_of(weights: np.ndarray, rows: int) -> np.ndarray:
    measure = find_method("arcee_fusion").measured["quartiles"].make({}, 2, weights[0].size)
    again = measure.needed()
    while again:
        for row in range(0, weights.shape[1], rows):
            measure.update(weights[:, row : row + rows], row * weights.shape[2], None)
        again = measure.finish_pass()
    return measure.result()


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (70, 1024), (129, 1031)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quartiles(shape, dtype):
    random = np.random.default_rng(shape[1])
    weights = (random.standard_normal((2, *shape)) * np.exp(random.standard_normal((2, shape[0], 1)))).astype(dtype)
    divergence = ops.row_divergence(weights[1], weights[0])
    expected = np.quantile((abs(weights[1] - weights[0]) * abs(divergence)).astype(np.float64), [0.25, 0.5, 0.75])
    for rows in (shape[0], 7):
        np.testing.assert_allclose(quartiles_of(weights, rows), expected, rtol=1e-14)


def test_equal_models_have_quartiles_of_zero():
    assert quartiles_of(np.ones((2, 90, 1000), np.float32), 40).tolist() == [0, 0, 0]
