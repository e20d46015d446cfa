"""Every method: each value that a parameter does not take, and each wrong number of models, is a fault of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import yaml

from plait.methods import find_method, method_names

MODELS = ("a", "b", "c")


def case(name: str, count: int | None = None, **given: Any) -> str:
    """A recipe of so many models (besides the base, where there is one), or of as many as the method takes."""
    method = find_method(name)
    first = method.base == "first"
    if count is None:
        count = min(2, method.max_models or 2) - first
    needed = {key: 0.5 for key in method.parameters if key not in method.defaults}
    document: dict[str, Any] = {"models": [{"model": model} for model in MODELS[:count]], "merge_method": name}
    if first or method.base == "required":
        document["base_model"] = "base"
    if not count:
        document["models"] = [{"model": "base"}]
    return yaml.safe_dump(document | {"parameters": {**needed, **given}}, sort_keys=False)


def wrong_values(name: str) -> list[tuple[str, Any]]:
    """Beyond either end, between whole numbers, and of another kind."""
    found: list[tuple[str, Any]] = []
    for key, declared in find_method(name).parameters.items():
        if declared.kind in {bool, str}:
            found += [(key, value) for value in ("nonsense", 7)]
            continue
        found += [(key, value) for value in ("high", True, float("nan"), float("inf"))]
        found += [(key, declared.low - 0.01)] if declared.low is not None else []
        found += [(key, declared.high + 0.01)] if declared.high is not None else []
        found += [(key, 1.5)] if declared.kind is int else []
    return found


@pytest.fixture
def tiny(write_model):
    for seed, name in enumerate(("base", *MODELS)):
        weights = np.random.default_rng(seed).standard_normal((2, 3)).astype(np.float32)
        write_model(name, {"model.layers.0.up.weight": weights}, {"num_hidden_layers": 1})


@pytest.mark.parametrize("name", method_names())
def test_every_value_out_of_range_is_told_with_the_range(name, tiny, faults):
    assert faults(case(name)) == []
    for key, value in wrong_values(name):
        declared = find_method(name).parameters[key]
        expected = f"{name}: {key} = {value!r} (recipe); {declared.fault(value)}."
        if isinstance(value, float) and math.isnan(value):
            expected = f"Parameter {key!r} is not a number: `.nan`"
        told = faults(case(name, **{key: value}))
        assert len(told) == 1, (key, value, told)
        assert expected in told[0]


@pytest.mark.parametrize("name", method_names())
def test_every_wrong_number_of_models_is_told(name, tiny, faults):
    method = find_method(name)
    first = method.base == "first"  # the base is one of the models
    wrong = [method.min_models - 1 - first] if method.min_models - first > 1 or method.base == "required" else []
    wrong += [method.max_models + 1 - first] if method.max_models else []
    for count in wrong:
        told = faults(case(name, count))
        assert len(told) == 1, (count, told)
        assert f"{name} takes " in told[0]
        assert f"there are {count + first}." in told[0]


@pytest.mark.parametrize("name", method_names())
def test_a_base_that_is_missing_and_a_parameter_that_is_none_are_told(name, tiny, faults):
    method = find_method(name)
    text = yaml.safe_load(case(name))
    told = faults(yaml.safe_dump({**text, "parameters": text["parameters"] | {"densty": 0.5}}))
    assert len(told) == 1
    assert f"{name} has no parameter 'densty'" in told[0]
    if text.pop("base_model", None):
        told = faults(yaml.safe_dump(text))
        assert told
        assert f"{name} {'starts from' if method.base == 'first' else 'works on differences from'}" in told[0]
    for key in [key for key in method.parameters if key not in method.defaults]:
        short = {k: v for k, v in text["parameters"].items() if k != key}
        told = faults(yaml.safe_dump({**yaml.safe_load(case(name)), "parameters": short}))
        assert told
        assert all(f"{name} needs {key!r}" in one for one in told)
