"""Methods written in numpy's terms or in torch's: each is given the arrays that it knows, wherever tiles are computed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

__all__ = ["Terms", "in_terms"]

Terms = Literal["any", "numpy", "torch"]


def in_terms(run: Callable[..., Any], terms: Terms) -> Callable[..., Any]:
    """Return `run` such that every array it gets is of its `terms`, and what it returns is as its stack was.

    "any" is for bodies that numpy arrays and torch tensors both understand. On the CPU nothing is copied but the few
    numbers per model; on another device a method in numpy terms has its tiles moved to the host and back.
    """
    if terms == "any":
        return run
    into = _to_torch if terms == "torch" else _to_numpy

    @functools.wraps(run)
    def worded(stack: Any, **arguments: Any) -> Any:
        given = {name: into(value) for name, value in arguments.items()}
        merged = run(into(stack), **given)
        if isinstance(stack, np.ndarray):
            return _to_numpy(merged)
        return _to_torch(merged).to(stack.device)

    return worded


def _to_numpy(value: Any) -> Any:
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


def _to_torch(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    import torch

    return torch.from_numpy(value if value.flags.writeable and value.flags.c_contiguous else value.copy())
