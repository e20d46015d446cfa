"""Every method gives what was worked out by hand, from numpy arrays and from torch tensors alike."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import xxhash

import plait
from plait.methods import find_method, method_names
from plait.ops import Rng, drop, rng_key


def _named(tensors) -> dict[str, np.ndarray]:
    named = tensors if isinstance(tensors, dict) else {"w": tensors}
    return {name: np.array(values, np.float32) for name, values in named.items()}


def _merged(name: str, case, convert) -> dict:
    models = [convert(_named(model)) for model in case.models]
    base = None if case.base is None else convert(_named(case.base))
    return plait.merge_tensors(models, name, base=base, seed=case.seed, **case.parameters)


def test_numpy(golden_case):
    name, case = golden_case
    merged = _merged(name, case, lambda model: model)
    expected = _named(case.expected)
    assert merged.keys() == expected.keys()
    for key, value in merged.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected[key], rtol=3e-7, atol=1e-7)


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is an extra")
def test_torch_gives_the_same_bits(golden_case):
    import torch

    name, case = golden_case
    here = _merged(name, case, lambda model: model)
    there = _merged(name, case, lambda model: {key: torch.from_numpy(value) for key, value in model.items()})
    for key, value in there.items():
        assert value.dtype == torch.float32
        assert value.numpy().tobytes() == here[key].tobytes()


def test_float64_stays_so(golden_case):
    name, case = golden_case
    if not find_method(name).random:  # (another element type, another mask)
        merged = _merged(name, case, lambda model: {key: value.astype(np.float64) for key, value in model.items()})
        for key, value in merged.items():
            assert value.dtype == np.float64
            np.testing.assert_allclose(value, _named(case.expected)[key], rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize("name", method_names())
def test_every_method_has_golden_cases_a_paper_and_a_summary(name, golden):
    assert len(golden.GOLDEN.get(name, ())) >= 2, f"{name} needs two cases in tests/methods/golden/"
    method = find_method(name)
    assert method.paper.startswith("https://")
    assert method.summary.endswith((".", "`"))
    assert all(declared.summary for declared in method.parameters.values())
    given = {method.parameter(key) for case in golden.GOLDEN[name] for key in case.parameters}
    idle = {"int8_mask"} if "int8_mask" in method.parameters else set()
    assert given | idle >= method.parameters.keys(), "a parameter that no golden case sets"


def test_no_golden_case_is_of_a_method_that_is_not_there(golden):
    assert golden.GOLDEN.keys() == set(method_names())


def _random_bits(key: int, index: int) -> int:
    """The definition in plait.ops.rng, in Python's integers."""

    def mix(x: int) -> int:
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            x = (x ^ x >> shift) * factor % 2**32
        return x ^ x >> 16

    low, high = index % 2**32, index >> 32
    return mix(mix(low ^ key % 2**32 ^ mix(high)) ^ key >> 32 ^ mix(high ^ 0x9E3779B9))


@pytest.mark.parametrize(
    ("seed", "values", "density", "kept"),
    [
        (0, [1] * 8, 0.25, [0, 2, 3]),
        (2, [4, -3, 1, 0], 0.5, [0, 1, 3]),
        (2, [-2, 5, 2, 1], 0.5, [0, 1]),
        (1, [4, -3, 1, 0], 0.5, [0, 2, 3]),
        (1, [-2, 5, 2, 1], 0.5, [0, 1, 2, 3]),
    ],
)
def test_the_masks_of_the_golden_cases(seed, values, density, kept):
    """Keyed by the seed, the tensor's name and the model's content: a hash of element type, shape and bytes."""
    array = np.array(values, np.float32)
    content = xxhash.xxh3_128(repr(("F32", array.shape)).encode() + array.tobytes()).digest()
    key = rng_key(seed, "w", content)
    below = [index for index in range(len(values)) if _random_bits(key, index) < density * 2**32]
    assert below == kept
    ones = np.ones((1, len(values)), np.float32)
    assert np.flatnonzero(drop(ones, np.array([[density]]), Rng(np.array([key], np.uint64)))).tolist() == kept
