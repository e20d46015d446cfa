"""Both ways to the nearest matrix of low rank, against the full decomposition."""

from __future__ import annotations

import numpy as np
import pytest

from plait.adapters.low_rank import Wanted, low_rank


def _matrix(rows, columns, decay):
    rng = np.random.default_rng(0)
    short = min(rows, columns)
    left = np.linalg.qr(rng.standard_normal((rows, short)))[0]
    right = np.linalg.qr(rng.standard_normal((columns, short)))[0]
    return np.ascontiguousarray((left * decay ** np.arange(short)) @ right.T, np.float32)


@pytest.mark.parametrize("wanted", [Wanted(rank=8), Wanted(error=0.3), Wanted(energy=0.5), Wanted(error=0.01)])
@pytest.mark.parametrize("shape", [(300, 420), (420, 300), (40, 90), (90, 40)])
@pytest.mark.parametrize("decay", [0.9, 0.99])
def test_as_near_as_can_be(shape, decay, wanted):
    matrix = _matrix(*shape, decay)
    made = low_rank(matrix, wanted, np.random.default_rng(1))
    squares = np.linalg.svd(matrix.astype(float), compute_uv=False) ** 2
    lost = np.sqrt(np.maximum(1 - np.cumsum(squares) / squares.sum(), 0))
    told = np.linalg.norm(matrix - made.up @ made.down) / np.linalg.norm(matrix)
    np.testing.assert_allclose(made.error, told, rtol=1e-3, atol=1e-6)
    assert made.error <= lost[made.rank - 1] * 1.01 + 1e-6, "within a percent of the best"
    if wanted.rank is None:
        most = wanted.error or np.sqrt(1 - wanted.energy)
        assert made.error <= most
        smallest = int(np.flatnonzero(lost <= most)[0]) + 1
        assert smallest <= made.rank <= smallest + 1


def test_an_exact_rank_is_found():
    rng = np.random.default_rng(3)
    matrix = (rng.standard_normal((600, 5)) @ rng.standard_normal((5, 700))).astype(np.float32)
    for wanted in (Wanted(rank=5), Wanted(error=1e-5), Wanted(rank=7)):
        made = low_rank(matrix, wanted, np.random.default_rng(1))
        assert made.error < 2e-6
        assert made.rank == (wanted.rank or 5)
        np.testing.assert_allclose(np.linalg.norm(made.up, axis=0), np.linalg.norm(made.down, axis=1), rtol=1e-3)


def test_zeros_have_no_rank():
    made = low_rank(np.zeros((4, 6), np.float32), Wanted(rank=3), np.random.default_rng(0))
    assert (made.rank, made.error, made.up.shape, made.down.shape) == (0, 0.0, (4, 0), (0, 6))
