"""What the laws of all methods are tried on: which methods, models drawn by seed, and a merge in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from golden.case import tables

import plait
from plait.methods import find_method


def every(names, law=""):
    """Run for each of these methods but those that say, with a reason, why they do not keep the law."""
    return pytest.mark.parametrize("name", [name for name in names if law not in tables().EXCEPT.get(name, {})])


def required(name: str, k: int) -> dict[str, Any]:
    """Values for what has no default: weights that add up to 1, and a position."""
    method = find_method(name)
    values: dict[str, Any] = {"t": 0.3} if "t" in method.parameters else {}
    return values | ({"weight": [1 / k] * k} if "weight" in method.parameters else {})


def merge(name: str, stack: np.ndarray, base: np.ndarray, *, seed: int = 0, **given_: Any) -> np.ndarray:
    """Merge `[k, *shape]` (a method that takes one model, or two, gets the first, or base and first)."""
    method = find_method(name)
    k = method.max_models - (method.base == "first") if method.max_models else len(stack)
    values = required(name, k) | given_
    needs = method.base in {"first", "required"}
    models = [{"w": np.asarray(model)} for model in stack[:k]]
    return plait.merge_tensors(models, name, base={"w": np.asarray(base)} if needs else None, seed=seed, **values)["w"]


def drawn(seed: int, k: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A base and models near it; a quarter of the deltas is zero."""
    random = np.random.default_rng(seed)
    base = np.array(random.standard_normal(shape), np.float32)
    delta = random.standard_normal((k, *shape)) * (random.random((k, *shape)) < 0.75)
    return base, (base + 0.25 * delta).astype(np.float32)


def takes(name: str, parameter: str) -> bool:
    return parameter in find_method(name).parameters
