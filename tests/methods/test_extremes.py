"""Laws at the edges: other scales, tensors with next to nothing in them, and values that no method takes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from drawing import drawn, every, merge, takes
from golden.case import tables

import plait
from plait.methods import find_method, method_names

METHODS = method_names()
DIVIDING = {"geometric_median", "karcher", "linear", "multislerp"}
"""Methods that divide by the sum of the weights, and say so."""
SCALES = (2.0**-13, 2.0**13)
KEPT_WITH = {"relative": True, "inter": "pairwise"}
"""Settings with which a method keeps the law of scales that it does not keep otherwise."""


def settings_of(name: str) -> list[dict]:
    """The defaults; with a density; each choice, switch, end of a range and next whole number, one at a time."""
    method = find_method(name)
    each = [{}, {"density": 0.5}] if "density" in method.parameters else [{}]
    for key, declared in method.parameters.items():
        values = (False, True) if declared.kind is bool else declared.choices
        values = values or [end for end in (declared.low, declared.high) if end is not None]
        if declared.kind is int:
            values = [method.defaults[key] + 1]
        if key not in {"int8_mask", "weight"}:  # which does nothing; and which has a law of its own
            each += [{key: value} for value in values if value != method.defaults.get(key)]
    return each


def told(settings: dict) -> str:
    return ",".join(f"{key}={value}" for key, value in settings.items()) or "defaults"


def every_setting(law=""):
    cases = [
        (name, values)
        for name in METHODS
        for values in settings_of(name)
        if law not in tables().EXCEPT.get(name, {}) or values.items() & KEPT_WITH.items()
    ]
    return pytest.mark.parametrize(("name", "values"), cases, ids=[f"{name}-{told(values)}" for name, values in cases])


@every_setting("scaled")
def test_models_on_another_scale_give_the_same_on_that_scale(name, values):
    """No epsilon is absolute. By powers of two, so that nothing is rounded otherwise; masks are another model's."""
    if find_method(name).random:
        values = {**values, "density": 1.0}
    for shape in ((7, 9), (40,), ()):
        base, stack = drawn(11, 3, shape)
        stack[0] = base + 2.0**-9 * (stack[0] - base)  # one that was hardly trained
        merged = merge(name, stack, base, **values)
        for factor in np.float32(SCALES):
            scaled = merge(name, stack * factor, base * factor, **values)
            largest = np.abs(merged).max() * 2e-6
            np.testing.assert_allclose(scaled / factor, merged, rtol=2e-6, atol=largest, err_msg=f"{shape} × {factor}")


@every_setting("scaled")
def test_deltas_on_another_scale_give_the_same_on_that_scale(name, values):
    """Of a base of zeros: what was learnt with a smaller rate is merged in the same way."""
    if find_method(name).random:
        values = {**values, "density": 1.0}
    _, stack = drawn(12, 3, (9, 8))
    zeros = np.zeros((9, 8), np.float32)
    merged = merge(name, stack, zeros, **values)
    for factor in np.float32(SCALES):
        scaled = merge(name, stack * factor, zeros, **values)
        np.testing.assert_allclose(scaled / factor, merged, rtol=2e-6, atol=2e-6 * np.abs(merged).max())


def _tensors(shape: tuple[int, ...]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A base and three models, where next to nothing is there or all is alike."""
    base, stack = drawn(5, 3, shape)
    zeros, tiny = np.zeros_like(base), np.float32(1e-42)
    one = np.repeat(stack[:1], 3, axis=0)
    signs = np.float32([1, -1, 1]).reshape(3, *[1] * base.ndim)
    return {
        "all zeros": (zeros, np.zeros_like(stack)),
        "a base of zeros": (zeros, stack),
        "models of zeros": (base, np.zeros_like(stack)),
        "one of zeros": (zeros, np.stack([zeros, stack[1], stack[2]])),
        "all the base": (base, np.repeat(base[None], 3, axis=0)),
        "all equal": (base, one),
        "opposite": (zeros, one * signs),
        "opposite deltas": (base, base + (one - base) * signs),
        "constant": (zeros, np.ones_like(stack)),
        "denormal": (base * tiny, stack * tiny),
        "denormal deltas": (zeros, stack * tiny),
        "small": (base * np.float32(1e-30), stack * np.float32(1e-30)),
        "large": (base * np.float32(1e15), stack * np.float32(1e15)),
    }


SHAPES = [(), (1,), (5,), (4, 1), (1, 4), (1, 1), (3, 4)]


@every_setting()
def test_where_next_to_nothing_is_there_the_result_is_finite(name, values):
    """Never NaN or infinity and, as warnings are errors here, never a warning."""
    for shape in SHAPES:
        for what, (base, stack) in _tensors(shape).items():
            merged = merge(name, stack, base, **values)
            assert merged.shape == shape
            assert np.isfinite(merged).all(), f"{what}, {shape}: {merged}"


@every([name for name in METHODS if takes(name, "weight")], "no weights")
def test_weights_of_nothing_give_a_finite_result_or_an_error(name):
    base, stack = drawn(6, 3, (3, 4))
    most = find_method(name).max_models or 3
    low = find_method(name).parameters["weight"].low
    for weight in product((0, 1) if low == 0 else (0, 1, -1), repeat=min(3, most)):
        if sum(weight) == 0 and name in DIVIDING:
            with pytest.raises(plait.PlaitError, match=r"weights.* (are|add up to) 0"):
                merge(name, stack, base, weight=list(weight))
            continue
        merged = merge(name, stack, base, weight=list(weight))
        assert np.isfinite(merged).all(), weight
