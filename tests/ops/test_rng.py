"""The counter-based generator: uniform, unrelated across keys and neighbours, cut anywhere."""

from __future__ import annotations

import numpy as np
import pytest

from plait import ops
from plait.ops import Rng, rng_key
from plait.ops.rng import keep_limits

SIZE = 1 << 18
CRITICAL = 4.5  # standard deviations; seeds are fixed, so this passes always or never


def numbers(keys: list[int], start: int = 0, size: int = SIZE, digits: int = 8) -> np.ndarray:
    """The leading `digits` bits of each element's random number, read off the masks by bisection."""
    stack = np.ones((1, size), np.float32)
    rows = []
    for key in keys:
        rng = Rng(np.array([key], np.uint64), start)
        low = np.zeros(size, np.int64)
        for edge in range(1, 1 << digits):
            low += ops.drop(stack, np.array([[edge / (1 << digits)]]), rng)[0] == 0
        rows.append(low)
    return np.array(rows)


def excess(observed: np.ndarray, expected: np.ndarray | float) -> float:
    """Chi-square of counts in standard deviations from its mean."""
    freedom = observed.size - 1
    return float((((observed - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


KEYS = [0, 1, 2, 1 << 32, rng_key(0, "a.weight", "m"), rng_key(0, "a.weight", "n"), rng_key(1, "a.weight", "m")]


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return numbers(KEYS, digits=5)


def test_every_value_is_equally_likely(drawn):
    for row in drawn:
        assert abs(excess(np.bincount(row, minlength=32), SIZE / 32)) < CRITICAL


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 8, 16, 64, 256, 4096, 65536])
def test_neighbours_are_unrelated(drawn, distance):
    for row in drawn:
        pairs = np.bincount(row[:-distance] * 32 + row[distance:], minlength=1024)
        assert abs(excess(pairs, pairs.sum() / 1024)) < CRITICAL


def test_keys_are_unrelated(drawn):
    for i in range(len(KEYS)):
        for j in range(i):
            pairs = np.bincount(drawn[i] * 32 + drawn[j], minlength=1024)
            assert abs(excess(pairs, SIZE / 1024)) < CRITICAL, (KEYS[i], KEYS[j])


def test_low_and_high_words_of_the_index_are_both_mixed_in():
    first = numbers([7], digits=3)
    for start in (1 << 32, 2 << 32, 1 << 40, (1 << 32) + 1):
        other = numbers([7], start, digits=3)
        pairs = np.bincount(first[0] * 8 + other[0], minlength=64)
        assert abs(excess(pairs, SIZE / 64)) < CRITICAL, start


def kept(density: float, start: int = 0, size: int = SIZE, key: int = 9) -> np.ndarray:
    rng = Rng(np.array([key], np.uint64), start)
    return ops.drop(np.ones((1, size), np.float32), np.array([[density]]), rng)[0] == 1


def test_the_density_is_kept():
    for density in (0.001, 0.1, 0.5, 0.9, 0.999):
        deviation = np.sqrt(SIZE * density * (1 - density))
        assert abs(kept(density).sum() - SIZE * density) < CRITICAL * deviation


def test_the_ends_are_exact():
    assert kept(1.0).all()
    assert not kept(0.0).any()
    assert not kept(1e-12).any()  # below 2^-32


def test_a_larger_density_keeps_all_that_a_smaller_one_keeps():
    assert (kept(0.4) & ~kept(0.6)).sum() == 0


def test_a_shifted_start_shifts_the_mask():
    whole = kept(0.5)
    assert (kept(0.5, start=12_345, size=1000) == whole[12_345:13_345]).all()
    around = kept(0.5, start=2**33 - 500, size=1000)
    assert (kept(0.5, start=2**33, size=500) == around[500:]).all()


def test_the_mask_does_not_change_from_version_to_version():
    mask = kept(0.5, start=2**32 - 16, size=32, key=0x0123456789ABCDEF)
    assert np.packbits(mask).tobytes().hex() == "03f4e26e"
    assert rng_key(42, "model.layers.0.mlp.up_proj.weight", "a1b2") == 5944854235421006640


SMALL = 3016
"""A key whose first number is below 2^22: densities are float32, which has all multiples of 2^-34 there."""


def _number_of_the_first() -> int:
    rng, low, high = Rng(np.array([SMALL], np.uint64)), 0, 2**32
    while high - low > 1:
        middle = (low + high) // 2
        stays = ops.drop(np.ones((1, 2)), np.array([[middle / 2**32, 0.0]]), rng)[0, 0]
        low, high = (low, middle) if stays else (middle, high)
    return low


def _documented(key: int, index: int) -> int:
    """The number of an element, for small keys and indices, from the definition in plait.ops.rng."""
    word = 0xFFFFFFFF

    def mix(x: int) -> int:
        x = (x ^ x >> 16) * 0x7FEB352D & word
        x = (x ^ x >> 15) * 0x846CA68B & word
        return x ^ x >> 16

    return mix(mix(index ^ key) ^ mix(0x9E3779B9))


def test_the_limit_itself_is_dropped():
    """The random number of this key's element 0 is read off by halving; it is kept from one step of chance above it on."""
    assert _number_of_the_first() == _documented(SMALL, 0) < 2**22


def test_a_density_just_at_the_limit():
    """Densities are float32; below 2^-8 those have every step of 2^-32, so small numbers show where the limit lies."""
    small = [(j, number) for j in range(2000) if (number := _documented(9, j)) < 2**24]
    assert len(small) > 3
    for j, number in small:
        assert [kept(limit / 2**32, size=2000)[j] for limit in (number, number + 1)] == [False, True]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_probability_for_each_entry_keeps_what_that_density_keeps(dtype):
    size, rng = 4096, Rng(np.array([3, 2**63], np.uint64), 2**32 - 2000)
    stack = np.ones((2, size), dtype)
    for density in (0.0, 2**-32, 1 / 3, 0.5, float(np.nextafter(np.float32(1), np.float32(0))), 1.0):
        chance = float(np.float32(density))
        each = ops.drop(stack, np.full((2, size), chance, dtype), rng)
        assert each.tobytes() == ops.drop(stack, np.full((2, 1), chance), rng).tobytes()
    chances = np.random.default_rng(0).random((2, size)).astype(dtype)
    fewer, more = (ops.drop(stack, share, rng) for share in (chances * dtype(0.9), chances))
    assert ((fewer == 1) <= (more == 1)).all()
    assert abs(more.sum() - chances.sum()) < CRITICAL * np.sqrt((chances * (1 - chances)).sum())


def test_a_chance_just_at_the_limit():
    """The entry's number is read off by halving; a density that is it exactly drops the entry, the next one keeps it."""
    low = _number_of_the_first()
    rng = Rng(np.array([SMALL], np.uint64))
    chances = np.array([[low / 2**32, 0.0], [(low + 0.75) / 2**32, 0.0], [(low + 1) / 2**32, 0.0]])
    assert [ops.drop(np.ones((1, 2)), row[None], rng)[0, 0] for row in chances] == [0, 0, 1]


def test_limits_are_those_of_the_density_in_float32():
    near = np.nextafter(np.float32(1), np.float32(0))
    densities = np.array([0.0, 1.0, 0.1, 0.25, near, 2**-33])
    assert keep_limits(densities, 6).tolist() == [0, 2**32, 429496736, 2**30, 2**32 - 2**8, 0]
    assert keep_limits(densities.astype(np.float32), 6).tolist() == keep_limits(densities, 6).tolist()


def test_keys_depend_on_every_part_and_on_their_limits():
    triples = [(0, "ab", "c"), (0, "a", "bc"), (1, "ab", "c"), (-1, "ab", "c"), (0, "ab", "d"), (2**80, "ab", "c")]
    assert len({rng_key(*triple) for triple in triples}) == len(triples)
    assert all(0 <= rng_key(*triple) < 2**64 for triple in triples)
    assert rng_key(0, "ab", "é") == rng_key(0, "ab", "é".encode())


def test_an_rng_refuses_what_is_no_key():
    with pytest.raises(TypeError, match="uint64"):
        Rng(np.array([1, 2]))
    with pytest.raises(TypeError, match="uint64"):
        Rng([1, 2])
    with pytest.raises(ValueError, match="-4"):
        Rng(np.array([1], np.uint64), -4)
