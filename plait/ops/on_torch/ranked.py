"""plait.ops.ranked for torch tensors; see plait.ops.on_cpu.ranked."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from plait.ops.on_torch.shapes import check_stack
from plait.ops.rng import Rng

__all__ = ["drop_ranked"]


def drop_ranked(deltas: Any, low: npt.NDArray[np.float64], step: npt.NDArray[np.float64], rng: Rng) -> Any:
    """See plait.ops.drop_ranked; an entry of rank r stays with probability low + step * r."""
    from plait.ops.on_torch import drop  # late: that module imports this one

    check_stack(deltas)
    if deltas.ndim < 2:
        raise ValueError(f"a stack of rows is [k, …, columns], not {list(deltas.shape)}")
    order = deltas.detach().abs().sort(dim=-1, stable=True).indices
    places = torch.arange(deltas.shape[-1], device=deltas.device).expand(deltas.shape)
    rank = torch.empty_like(order).scatter_(-1, order, places).to(torch.float64)
    shape = (len(deltas), *[1] * (deltas.ndim - 1))
    least, more = (torch.as_tensor(each, device=deltas.device).reshape(shape) for each in (low, step))
    return drop(deltas, (least + more * rank).clamp(0, 1), rng)
