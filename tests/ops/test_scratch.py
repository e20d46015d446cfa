"""The arena: reused within a thread, never shared between what lives at once."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from plait import ops
from plait.ops import scratch
from plait.ops.scratch import empty, tile_scope


def address(x: np.ndarray) -> int:
    return x.ctypes.data


def test_outside_a_scope_nothing_is_reused():
    first, second = empty((100,), np.float32), empty((100,), np.float32)
    assert not np.shares_memory(first, second)
    assert first.base is None


def test_a_second_tile_gets_the_memory_of_the_first():
    with tile_scope():  # the first time tells how much is wanted
        empty((1000,), np.float32), empty((1000,), np.float64)
    with tile_scope():
        places = [address(empty((1000,), np.float32)), address(empty((10, 100), np.float64))]
    with tile_scope():
        one, two = empty((1000,), np.float32), empty((10, 100), np.float64)
        assert [address(one), address(two)] == places
        assert not np.shares_memory(one, two)
        assert all(place % 64 == 0 for place in places)
        assert two.flags.c_contiguous
        assert two.flags.writeable


def test_what_does_not_fit_lives_apart_and_fits_the_next_time():
    with tile_scope():
        kept = [empty((100_000,), np.float32) for _ in range(5)]
        for number, x in enumerate(kept):
            x[:] = number
        assert [x[0] for x in kept] == [0, 1, 2, 3, 4]
    with tile_scope():
        assert all(empty((100_000,), np.float32).base is not None for _ in range(5))


def test_an_inner_scope_gives_back_only_its_own():
    with tile_scope():
        empty((4096,), np.uint8)
    with tile_scope():
        outer = empty((64,), np.uint8)
        with tile_scope():
            inner = empty((64,), np.uint8)
            assert not np.shares_memory(outer, inner)
            place = address(inner)
        assert address(empty((64,), np.uint8)) == place


def test_an_error_ends_the_scope():
    with pytest.raises(ZeroDivisionError), tile_scope():
        empty((1 // 0,), np.uint8)
    assert empty((64,), np.uint8).base is None


def test_huge_arrays_do_not_stay(monkeypatch):
    monkeypatch.setattr(scratch, "LIMIT", 1 << 20)
    seen = []

    def work() -> None:
        for _ in range(3):
            with tile_scope():
                seen.append(empty((1 << 21,), np.uint8).base is None)
                empty((16,), np.uint8)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True] * 3


def test_ops_of_many_threads_do_not_meet():
    failures = []

    def work(number: int) -> None:
        stack = np.full((2, 9000), number, np.float32)
        weight = np.array([[1.0], [2.0]], np.float32)
        for _ in range(50):
            with tile_scope():
                total = ops.weighted_sum(stack, weight)
                mean = ops.agreeing_mean(stack, ops.elect(stack, weight), weight)
                if not ((total == 3 * number).all() and np.allclose(mean, number, rtol=1e-6)):
                    failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_results_come_from_the_arena():
    stack, weight = np.ones((2, 500), np.float32), np.ones((2, 1), np.float32)
    for _ in range(2):
        with tile_scope():
            result = ops.weighted_sum(stack, weight)
    assert result.base is not None
    assert ops.weighted_sum(stack, weight).base is None
