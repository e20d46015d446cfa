"""plait.ops.last_axis for torch tensors; see plait.ops.on_cpu.last_axis."""

from __future__ import annotations

from typing import Any

import torch

from plait.ops.on_torch.blocks import BLOCK, LANES, fold
from plait.ops.on_torch.entries import exp
from plait.ops.on_torch.roots import sqrt
from plait.ops.on_torch.shapes import check

__all__ = ["keep_of_each", "ranks", "row_norm", "row_sum", "softmax_sums"]


def _check_rows(x: Any) -> None:
    check(x)
    if x.ndim == 0:
        raise ValueError("a row has an axis: an array without dimensions has no rows")


def _sums(x: Any) -> Any:
    """Float64 sums of rows, `[…, columns]` -> `[…, 1]`; zeros that fill up change no sum that began at +0."""
    columns = x.shape[-1]
    run = LANES if columns <= BLOCK else BLOCK
    padded = torch.nn.functional.pad(x, (0, -columns % run))
    blocks = -(-columns // BLOCK)
    lanes = padded.reshape(*x.shape[:-1], blocks, padded.shape[-1] // (max(1, blocks) * LANES), LANES)
    each = torch.zeros_like(lanes[..., 0, :]) if lanes.shape[-2] else x.new_zeros((*x.shape[:-1], blocks, LANES))
    for step in range(lanes.shape[-2]):
        each = each + lanes[..., step, :]
    sums = fold(each)
    total = x.new_zeros(x.shape[:-1])
    for block in range(blocks):
        total = total + sums[..., block]
    return total[..., None]


def row_sum(x: Any) -> Any:
    """See plait.ops.row_sum."""
    _check_rows(x)
    return _sums(x.to(torch.float64)).to(x.dtype)


def row_norm(x: Any) -> Any:
    """See plait.ops.row_norm."""
    _check_rows(x)
    wide = x.to(torch.float64)
    total = _sums(wide * wide)
    some = total > 0
    root = sqrt(torch.where(some, total, 1.0))  # so that no gradient is 0/0
    return torch.where(some, root, 0.0).to(x.dtype)


def softmax_sums(x: Any, y: Any) -> tuple[Any, Any]:
    """See plait.ops.on_cpu.last_axis; on the host, as numpy goes on with it."""
    _check_rows(x)
    if x.shape != y.shape or x.dtype != y.dtype or x.shape[-1] == 0:
        raise ValueError(f"rows of one length and type are compared, not {list(x.shape)} and {list(y.shape)}")
    pair = [each.detach().to(torch.float64) for each in (x, y)]
    tops = [each.amax(dim=-1, keepdim=True) for each in pair]
    first, second = (exp(each - top) for each, top in zip(pair, tops, strict=True))
    sums = [_sums(first), _sums(second), _sums(first * (pair[0] - pair[1]))]
    return torch.cat(tops, dim=-1).cpu().numpy(), torch.cat(sums, dim=-1).cpu().numpy()


def ranks(x: Any) -> Any:
    """See plait.ops.ranks."""
    _check_rows(x)
    order = x.detach().abs().sort(dim=-1, stable=True).indices
    rank = torch.arange(x.shape[-1], device=x.device).expand(x.shape)
    return torch.empty_like(order).scatter_(-1, order, rank).to(x.dtype)


def keep_of_each(deltas: Any, n: int, m: int) -> Any:
    """See plait.ops.keep_of_each."""
    _check_rows(deltas)
    columns = deltas.shape[-1]
    m = max(1, min(m, columns))
    sizes = torch.nn.functional.pad(deltas.detach().abs(), (0, -columns % m), value=-1.0)
    groups = sizes.reshape(*deltas.shape[:-1], -(-columns // m), m)
    order = groups.sort(dim=-1, descending=True, stable=True).indices[..., :n]
    kept = torch.zeros(groups.shape, dtype=torch.bool, device=deltas.device).scatter_(-1, order, value=True)
    kept = kept.reshape(sizes.shape)[..., :columns]
    return torch.where(kept, deltas, torch.zeros((), dtype=deltas.dtype, device=deltas.device))
