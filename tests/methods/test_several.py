"""Measures that do not look up each other are taken in the same passes."""

from __future__ import annotations

import numpy as np
import pytest

from plait.methods import find_method
from plait.methods.measures import MagnitudeThreshold, Several, Sums
from plait.methods.measures.seen import Seen

STACK = np.random.default_rng(3).standard_normal((2, 100_000)).astype(np.float32)


def measures() -> list:
    """One that is not needed, one that cannot be written as a loop, one that takes three passes or more."""
    return [
        Sums(Seen(lambda stack, *_: stack, {}), 2, needed=False),
        Sums(Seen(lambda stack, *_: np.sort(stack, axis=1), {}), 2),
        MagnitudeThreshold(np.array([0.3, 0.7]), STACK.shape[1]),
    ]


def measured(measure, *, by_grid: bool):
    """Drive it as the engine does, in two threads' halves; count the passes."""
    measure.prime(np.ones((2, 50), np.float32))  # misleads
    passes, again = 0, measure.needed()
    while again:
        for part in np.split(STACK[:, :98304], 2, axis=1):
            fork = measure.fork()
            fork.enter({})
            grid = np.ascontiguousarray(part).view(np.uint8)
            if not by_grid or fork.update_grid(grid, "F32", 0, None, has_base=False) is None:
                for tile in np.split(part, 12, axis=1):
                    fork.update(tile, 0, None)
            measure.join(fork)
        passes += 1
        again = measure.finish_pass()
    return measure.result(), passes


@pytest.mark.parametrize("by_grid", [True, False])
def test_each_finds_what_it_would_find_alone(by_grid):
    together, passes = measured(Several(measures()), by_grid=by_grid)
    alone = [measured(measure, by_grid=False) for measure in measures()]
    assert [found.tolist() for found in together] == [found.tolist() for found, _ in alone]
    assert passes == max(more for _, more in alone) == 3
    assert not Several(measures()[:1]).needed()


def test_what_is_looked_up_is_measured_before():
    assert find_method("compeft").rounds == (("threshold", "totals", "squares"),)
    assert find_method("ramplus").rounds == (("extremes",), ("counts",))
    assert find_method("linear").rounds == ()
