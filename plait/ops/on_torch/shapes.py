"""What torch tensors and the numbers beside them must be."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["broadcast", "check", "check_shapes", "check_stack", "common_dtype", "per_model", "plain", "zero_of"]

FLOATS = frozenset({torch.float32, torch.float64})


def check(x: Any) -> None:
    """Refuse what is no tensor of floats."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"ops take numpy arrays or torch tensors, not {type(x).__name__}")
    if x.dtype not in FLOATS:
        raise TypeError(f"ops compute in float32 or float64, not in {x.dtype}")


def check_stack(stack: Any) -> None:
    """Refuse what is no stack."""
    check(stack)
    if stack.ndim == 0 or stack.shape[0] == 0:
        raise ValueError(f"a stack is [k, *shape] with at least one model, not {list(stack.shape)}")


def per_model(number: Any, stack: Any) -> Any:
    """Return numbers `[k, 1, …, 1]` as such, in the stack's dtype and on its device."""
    each = torch.as_tensor(number, dtype=stack.dtype, device=stack.device).reshape(-1)
    if each.numel() != stack.shape[0]:
        raise ValueError(f"one number per model: {stack.shape[0]} models, but {each.numel()} numbers")
    return each.reshape(-1, *[1] * (stack.ndim - 1))


def plain(x: Any, beside: Any, shape: Any) -> Any:
    """Return one array that goes with a stack (a base, a sign), in the stack's dtype and on its device."""
    x = torch.as_tensor(x, dtype=beside.dtype, device=beside.device)
    if x.shape != shape:
        raise ValueError(f"this array is [*shape] = {list(shape)} beside such a stack, not {list(x.shape)}")
    return x


def zero_of(like: Any) -> Any:
    """Return 0 in that dtype, on that device."""
    return torch.zeros((), dtype=like.dtype, device=like.device)


def common_dtype(*values: Any) -> Any:
    """Return the dtype of the first float array among arrays and plain numbers; float32 if there is none."""
    dtypes = []
    for value in values:
        if hasattr(value, "dtype"):
            dtypes.append(torch.as_tensor(value).dtype)
        elif not isinstance(value, (bool, int, float)):
            raise TypeError(f"ops take numpy arrays or torch tensors, not {type(value).__name__}")
    for dtype in dtypes:
        if dtype not in FLOATS and (dtype.is_floating_point or dtype.is_complex):
            raise TypeError(f"ops compute in float32 or float64, not in {dtype}")
    return next((dtype for dtype in dtypes if dtype in FLOATS), torch.float32)


def broadcast(*values: Any) -> tuple[Any, ...]:
    """Return arrays and plain numbers as tensors of their common dtype, where the first tensor is.

    Raises:
        TypeError: there is no array, or one of another dtype.
        ValueError: shapes that do not broadcast.
    """
    dtype = common_dtype(*values)
    home = next((value.device for value in values if isinstance(value, torch.Tensor)), None)
    if home is None:
        raise TypeError("ops take numpy arrays or torch tensors, not numbers alone")
    tensors = tuple(torch.as_tensor(value, dtype=dtype, device=home) for value in values)
    check_shapes(*tensors)
    return tensors


def check_shapes(*tensors: Any) -> None:
    """Refuse shapes that do not broadcast."""
    try:
        torch.broadcast_shapes(*(x.shape for x in tensors))
    except RuntimeError as error:
        told = " and ".join(str(list(x.shape)) for x in tensors)
        raise ValueError(f"arrays of the shapes {told} do not go together") from error
