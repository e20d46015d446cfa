"""Ops that choose by rank: both sides keep the same, and what drawing for every entry by its rank keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from plait import ops
from plait.ops import Rng
from plait.ops.on_cpu import ranked
from plait.ops.rng import Memory

torch = pytest.importorskip("torch")
DTYPES = st.sampled_from([np.float32, np.float64])
ELEMENTS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-40, -1e-45, 3e30]) | st.floats(-9, 9, width=32)
SHAPES = st.sampled_from([(1, 1), (2, 1), (1, 9), (2, 3, 5), (2, 0), (2, 3, 0), (3, 2, 2, 7), (2, 70), (1, 1030)])
KEYS = np.array([5, 2**63 + 9, 77], np.uint64)


def column(numbers, ndim: int) -> np.ndarray:
    return np.asarray(numbers, np.float64).reshape(-1, *[1] * (ndim - 1))


def by_rank(x: np.ndarray, density, epsilon, rng: Rng) -> np.ndarray:
    """Draw for every entry, with the probability that its rank gives it."""
    rank = np.argsort(np.argsort(abs(x), axis=-1, kind="stable"), axis=-1, kind="stable")
    middle, half = column(density, x.ndim), column(epsilon, x.ndim)
    half = np.where((middle > 0) & (middle < 1) & (x.shape[-1] > 1), half, 0)
    chance = (middle - half) + 2 * half / max(1, x.shape[-1] - 1) * rank
    return ops.drop(x, np.clip(chance, 0, 1), rng)


def check(x: np.ndarray, density, epsilon, rng: Rng) -> np.ndarray:
    before, numbers = x.tobytes(), (column(density, x.ndim), column(epsilon, x.ndim))
    kept = ops.drop_ranked(x, *numbers, rng)
    assert (kept.dtype, kept.shape, x.tobytes()) == (x.dtype, x.shape, before)
    assert kept.tobytes() == by_rank(x, density, epsilon, rng).tobytes()
    for given_ in (numbers, [torch.from_numpy(each) for each in numbers]):
        assert ops.drop_ranked(torch.from_numpy(x.copy()), *given_, rng).numpy().tobytes() == kept.tobytes()
    return kept


@settings(max_examples=80, deadline=None)
@given(dtype=DTYPES, shape=SHAPES, start=st.sampled_from([0, 4096, 2**32 - 3]), data=st.data())
def test_what_stays(dtype, shape, start, data):
    x = data.draw(hnp.arrays(dtype, shape, elements=ELEMENTS))
    density = data.draw(st.lists(st.floats(0, 1), min_size=len(x), max_size=len(x)))
    epsilon = [data.draw(st.floats(0, min(d, 1 - d))) for d in density]
    epsilon = [e if d - e >= 0 and d + e <= 1 else 0 for d, e in zip(density, epsilon, strict=True)]
    check(x, density, epsilon, Rng(KEYS[: len(x)], start))


KINDS = {
    "normal": lambda r, n: r.standard_normal(n),
    "few values": lambda r, n: r.choice([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0], n),
    "zeros": lambda r, n: 0 * r.standard_normal(n),
    "mostly zeros": lambda r, n: r.standard_normal(n) * (r.random(n) < 0.05),
    "near": lambda r, n: 1 + 1e-3 * r.random(n),
    "wide": lambda r, n: np.exp(15 * r.standard_normal(n)),
    "small": lambda r, n: 1e-39 * r.standard_normal(n),
    "steps": lambda r, n: np.round(20 * r.standard_normal(n)) / 64,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [40, 3000])
def test_what_stays_of_long_rows(kind, dtype, columns):
    random = np.random.default_rng(3)
    x = np.stack([KINDS[kind](random, (7, columns)) for _ in range(3)]).astype(dtype)
    kept = check(x, [0.5, 0.3, 0.9], [0.5, 0.1, 0.05], Rng(KEYS, 4096 * 7))
    if kind == "normal":
        assert np.abs((kept != 0).mean(axis=(1, 2)) - [0.5, 0.3, 0.9]).max() < 0.1


@pytest.mark.parametrize(("density", "epsilon"), [(0.1, 0.2), (0.9, 0.2), (1.5, 0), (-0.5, 0), (0.5, -0.1)])
def test_chances_are_from_0_to_1(density, epsilon):
    for x in (np.ones((1, 3)), torch.ones((1, 3))):
        with pytest.raises(ValueError, match="are in \\[0, 1\\]"):
            ops.drop_ranked(x, density, epsilon, Rng(KEYS[:1]))


def test_wrong_counts_and_shapes():
    with pytest.raises(ValueError, match="one key per model: 2 models, but 1 keys"):
        ops.drop_ranked(np.ones((2, 3)), column([0.5, 0.5], 2), column([0.1, 0.1], 2), Rng(KEYS[:1]))
    with pytest.raises(ValueError, match="one number per model: 2 models, but 1 numbers"):
        ops.drop_ranked(np.ones((2, 3)), 0.5, column([0.1, 0.1], 2), Rng(KEYS[:2]))


def test_what_was_found_once_is_held(monkeypatch):
    random = np.random.default_rng(5)
    x = random.standard_normal((2, 3, 300)).astype(np.float32)
    numbers, memory = (column([0.5, 1.0], 3), column([0.2, 0.2], 3)), Memory(room=10**4)
    kept = check(x, [0.5, 1.0], [0.2, 0.2], Rng(KEYS[:2], 900, memory))
    monkeypatch.setattr(ranked, "_mark_rows", None)  # no row is looked at again
    assert ops.drop_ranked(x, *numbers, Rng(KEYS[:2], 900, memory)).tobytes() == kept.tobytes()
    for other in (Rng(KEYS[:2], 1800, memory), Rng(KEYS[:2], 900, Memory(room=10**4)), Rng(KEYS[:2], 900)):
        with pytest.raises(TypeError):
            ops.drop_ranked(x, *numbers, other)
    with pytest.raises(TypeError):
        ops.drop_ranked(x, column([0.4, 1.0], 3), numbers[1], Rng(KEYS[:2], 900, memory))


@pytest.mark.parametrize("columns", [256, 300, 400, 5000])
def test_rows_of_two_magnitudes(columns):
    """Counting leaves few open, or so many that the row is sorted."""
    random = np.random.default_rng(6)
    check(random.choice([-1.0, 1.0, 2.0], (1, 4, columns)).astype(np.float32), [0.5], [0.5], Rng(KEYS[:1]))
