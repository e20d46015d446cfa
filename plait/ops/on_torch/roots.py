"""The square root, correctly rounded: torch's own on a CPU is a library's, and in float64 at times one bit off."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

__all__ = ["sqrt"]


class _Root(torch.autograd.Function):  # type: ignore[misc]  # torch is not seen by the type checker
    """numpy's root where the CPU computes (the processor's instruction), torch's on other devices."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        """Take the root."""
        if x.device.type == "cpu":
            root = torch.empty_like(x)
            with np.errstate(invalid="ignore"):
                np.sqrt(x.detach().numpy(), out=root.numpy())
        else:
            root = x.sqrt()
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """Divide by twice the root."""
        (root,) = ctx.saved_tensors
        return gradient / (2 * root)


def sqrt(x: Any) -> Any:
    """Take the square root of a float tensor of any shape."""
    return _Root.apply(x)
