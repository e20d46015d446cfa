"""What is measured is exact, by whichever way it was found: windows, histograms, whole arrays, in any tiles and forks."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plait import ops
from plait.methods.measures import SAMPLE, Gram, KeptNorm, MagnitudeThreshold, kept_norm
from plait.ops import BLOCK, Rng, tile_scope

few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
KINDS = ["normal", "few values", "mostly zeros", "bfloat16", "sorted", "block", "equal", "tiny", "wide"]
SIZES = [1, 2, 100, 65535, 65536, 65537, 200_003]


def entries(kind: str, size: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    normal = random.standard_normal(size).astype(np.float32)
    made = {
        "normal": lambda: normal,
        "few values": lambda: random.choice(np.array([-2, -1, 0, 0.5, 1, 3], np.float32), size),
        "mostly zeros": lambda: normal * (random.random(size) < 0.03),
        "bfloat16": lambda: (0.01 * normal).astype(ml_dtypes.bfloat16).astype(np.float32),
        "sorted": lambda: np.sort(normal),  # a sample of one region misleads
        "block": lambda: np.where(np.arange(size) < size // 3, 100 + normal, 1e-3 * normal),
        "equal": lambda: np.full(size, -0.25, np.float32),
        "tiny": lambda: 1e-42 * normal,  # subnormals
        "wide": lambda: np.exp(40 * normal.astype(np.float64)).clip(1e-38, 1e38),
    }[kind]()
    return made.astype(np.float32)


def expected(stack: np.ndarray, density: list[float]) -> list[float]:
    out = []
    for row, d in zip(stack, density, strict=True):
        rank = max(1, math.floor(d * row.size))
        out.append(math.inf if d <= 0 else 0.0 if d >= 1 else np.partition(np.abs(row), row.size - rank)[-rank])
    return out


def raw(stack: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(stack).view(np.uint8)


def find(stack: np.ndarray, density: list[float], sample=None, *, way: str = "tiles", forks: int = 1) -> np.ndarray:
    """Drive the measure as the engine does: a sample, then passes over pieces shared out to forks."""
    measure = MagnitudeThreshold(np.array(density), stack.shape[1])
    if measure.needed():
        if measure.wants_sample() and sample is not None:
            measure.prime(sample)
        again, passes = True, 0
        while again:
            parts = [measure.fork() for _ in range(forks)] if forks > 1 else [measure]
            for number, start in enumerate(range(0, stack.shape[1], 3 * BLOCK)):
                piece = np.ascontiguousarray(stack[:, start : start + 3 * BLOCK])
                to = parts[number % len(parts)]
                grids = way == "grids" or (way == "both" and number // len(parts) % 2)
                with tile_scope():
                    if not grids or to.update_grid(raw(piece), "F32", start, None, has_base=False) is None:
                        to.update(piece, start, None)
            if forks > 1:
                for part in parts:
                    measure.join(part)
            again = measure.finish_pass()
            passes += 1
            assert passes <= 3
    return measure.result()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_the_threshold_is_the_kth_largest_magnitude(kind, size):
    stack = np.stack([entries(kind, size, seed) for seed in range(4)])
    density = [0.2, 0.731, 1.0, 0.0]
    even = stack[:, :: max(1, size // SAMPLE)]
    assert find(stack, density, even).tolist() == expected(stack, density)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sample", ["even", "front", "back", "one", "none", "other"])
@pytest.mark.parametrize("way", ["tiles", "grids", "both"])
def test_a_sample_that_misleads_costs_passes_not_exactness(kind, sample, way):
    size = 150_001
    stack = np.stack([entries(kind, size, seed) for seed in (1, 2)])
    shown = {
        "even": stack[:, ::2],
        "front": stack[:, :4096],
        "back": stack[:, -4096:],
        "one": stack[:, :1],
        "none": None,
        "other": 1e-20 * stack[:, :4096],
    }[sample]
    for density, forks in (([0.5, 0.02], 1), ([0.999, 1e-6], 3)):
        assert find(stack, density, shown, way=way, forks=forks).tolist() == expected(stack, density)


@few
@given(seed=st.integers(0, 999), density=st.floats(1e-6, 1 - 1e-6), values=st.integers(1, 6), forks=st.integers(1, 3))
def test_ties_anywhere_in_the_rank(seed, density, values, forks):
    random = np.random.default_rng(seed)
    stack = random.choice(random.standard_normal(values).astype(np.float32), (1, 70_000))
    found = find(stack, [density], stack[:, ::8], way="both", forks=forks)
    assert found.tolist() == expected(stack, [density])


def test_float64_is_not_rounded_to_find_the_threshold():
    stack = np.random.default_rng(0).standard_normal((1, 100_000)) * 1e-60
    assert find(stack, [0.3], stack[:, ::2]).tolist() == expected(stack, [0.3])


def test_float64_tiles_among_float32_tiles_of_one_model():
    """As `scope: model` meets them, the first of them after others were counted, on one fork of two."""
    narrow, wide = entries("normal", 90_000)[None], np.random.default_rng(1).standard_normal((1, 50_000))
    measure = MagnitudeThreshold(np.array([0.3]), 140_000)
    measure.prime(narrow[:, ::2])
    again = True
    while again:
        forks = [measure.fork(), measure.fork()]
        forks[0].update(narrow[:, :40_000], 0, None)
        forks[1].update(narrow[:, 40_000:], 0, None)
        forks[1].update(wide, 0, None)
        for fork in forks:
            measure.join(fork)
        again = measure.finish_pass()
    everything = np.concatenate([narrow, wide], axis=1)
    assert measure.result().tolist() == expected(everything, [0.3])


def test_torch_tiles_find_the_same():
    torch = pytest.importorskip("torch")
    stack = np.stack([entries("bfloat16", 80_000), entries("sorted", 80_000)])
    measure = MagnitudeThreshold(np.array([0.1, 0.9]), 80_000)
    tensor = torch.from_numpy(stack)
    measure.prime(tensor[:, :100])
    again = True
    while again:
        for part in tensor.split(30_000, dim=1):
            measure.update(part.contiguous(), 0, None)
        again = measure.finish_pass()
    assert measure.result().tolist() == expected(stack, [0.1, 0.9])


@pytest.mark.parametrize("k", [3, 60])
def test_many_models_share_the_room_for_counters(k):
    stack = np.stack([entries("normal", 66_000, seed) for seed in range(k)])
    density = [0.3] * k
    assert find(stack, density, stack[:, ::4], way="grids").tolist() == expected(stack, density)


def cuts(size: int) -> list[int]:
    return [0, BLOCK, 3 * BLOCK, size]


@few
@given(seed=st.integers(0, 999), size=st.integers(3 * BLOCK + 1, 6 * BLOCK))
def test_the_gram_matrix_does_not_depend_on_tiles(seed, size):
    stack = np.random.default_rng(seed).standard_normal((3, size)).astype(np.float32)
    whole, tiled, gridded = Gram(3), Gram(3), Gram(3)
    whole.update(stack, 0, None)
    fork = tiled.fork()
    for number, (low, high) in enumerate(zip(cuts(size), cuts(size)[1:], strict=False)):
        piece = np.ascontiguousarray(stack[:, low:high])
        with tile_scope():  # whose memory is used again
            (fork if number else tiled).update(piece, low, None)
            assert gridded.update_grid(raw(piece), "F32", low, None, has_base=False) == [True] * 3
    tiled.join(fork)
    assert whole.result().tobytes() == tiled.result().tobytes() == gridded.result().tobytes()
    np.testing.assert_allclose(whole.result(), stack.astype(float) @ stack.T.astype(float), rtol=1e-12, atol=1e-9)


def keep_by(way: str, density: float, threshold: float):
    column = np.full((2, 1), threshold if way == "trim" else density)
    return lambda deltas, rng: ops.trim(deltas, column) if way == "trim" else ops.drop(deltas, column, rng)


@few
@given(seed=st.integers(0, 999), way=st.sampled_from(["trim", "drop"]), size=st.integers(3 * BLOCK + 1, 6 * BLOCK))
def test_the_kept_norm_is_the_ratio_of_exact_sums(seed, way, size):
    stack = np.random.default_rng(seed).standard_normal((2, size)).astype(np.float32)
    rng = Rng(np.array([seed, seed + 1], np.uint64))
    keep = keep_by(way, 0.4, 0.9)
    tiled, gridded = KeptNorm(2, keep, needed=True), KeptNorm(2, keep, needed=True)
    fork = tiled.fork()
    for number, (low, high) in enumerate(zip(cuts(size), cuts(size)[1:], strict=False)):
        piece = np.ascontiguousarray(stack[:, low:high])
        with tile_scope():
            (fork if number else tiled).update(piece, low, rng.at(low))
            assert gridded.update_grid(raw(piece), "F32", low, rng.at(low), has_base=False) == [True] * 2
    tiled.join(fork)
    assert tiled.result().tobytes() == gridded.result().tobytes()
    kept = keep(stack, rng)
    exact = [
        math.fsum(np.abs(a.astype(float))) / math.fsum(np.abs(b.astype(float)))
        for a, b in zip(stack, kept, strict=True)
    ]
    np.testing.assert_allclose(tiled.result(), exact, rtol=1e-13)


def test_the_kept_norm_of_nothing_is_1():
    measure = KeptNorm(2, lambda deltas, _: 0 * deltas, needed=True)
    measure.update(np.array([[1.0, 2.0], [0.0, 0.0]]), 0, None)
    assert measure.result().tolist() == [1, 1]
    assert not KeptNorm(2, lambda deltas, _: deltas, needed=False).needed()


def test_a_user_s_own_way_to_keep_is_measured_tile_by_tile():
    measure = KeptNorm(1, lambda deltas, _: np.where(deltas > 0, deltas, 0), needed=True)
    stack = np.array([[1.0, -3.0, 2.0]], np.float32)
    assert measure.update_grid(raw(stack), "F32", 0, None, has_base=False) is None
    measure.update(stack, 0, None)
    assert measure.result().tolist() == [2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_kept_is_measured_with_numbers_as_the_method_has_them(dtype):
    """A density that float32 rounds is rounded here, too: else other entries would be kept than are measured."""
    seen = []

    def keep(deltas, p, _):
        seen.append(p["density"])
        return deltas

    measure = kept_norm(keep).make({"density": np.array([[0.3]]), "rescale": "l1"}, 1, 8)
    measure.update(np.ones((1, 8), dtype), 0, None)
    assert seen[0].dtype == dtype
    assert seen[0].tolist() == [[float(dtype(0.3))]]
