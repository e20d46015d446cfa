"""What importing plait.ops costs: neither Numba nor torch before an op needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest


def loaded(code: str) -> set[str]:
    told = subprocess.run(
        [sys.executable, "-c", code + "\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(told.stdout.split()) & {"numba", "torch", "ml_dtypes", "transformers"}


@pytest.mark.parametrize("name", ["plait.ops", "plait.ops.codec", "plait.ops.magnitude", "plait.ops.rng"])
def test_importing_loads_nothing_heavy(name):
    assert loaded(f"import {name}") == set()


def test_a_numpy_op_loads_numba_but_not_torch():
    code = "import numpy as np\nfrom plait import ops\nops.add(np.ones(2), np.ones(2))"
    assert loaded(code) - {"ml_dtypes"} == {"numba"}
