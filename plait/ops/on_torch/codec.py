"""Between a checkpoint's bits and floats, for torch; see plait.ops.on_cpu.codec."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["decode", "encode"]

DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def _read_as(raw: Any, code: str, size: int) -> Any:
    dtype = DTYPES[code]
    if raw.numel() != size * dtype.itemsize:
        raise ValueError(f"{raw.numel()} bytes do not hold {size} elements of {dtype.itemsize} bytes")
    return raw.reshape(-1).view(dtype)


def decode(raw: Any, code: str, base: Any, out: Any) -> bool:
    """See plait.ops.codec.decode."""
    value = _read_as(raw, code, out.numel()).to(out.dtype).reshape(out.shape)
    out.copy_(value if base is None else value - base)
    return bool(out.isfinite().all())


def _round_to_odd(value: Any) -> Any:
    """float64 to float32, inexact values to the neighbour whose last bit is 1: rounding again is as rounding once."""
    near = value.to(torch.float32)
    bits = near.view(torch.int32)
    cut = torch.where(near.abs() > value.abs(), bits - 1, bits)
    exact = (near == value) | value.isnan()
    return torch.where(exact, bits, cut | 1).view(torch.float32)


def encode(values: Any, code: str, base: Any, raw: Any) -> bool:
    """See plait.ops.codec.encode."""
    value = values.detach() if base is None else values.detach() + base
    if value.dtype == torch.float64 and DTYPES[code].itemsize < 4:
        value = _round_to_odd(value)
    if code == "F8_E4M3":  # some versions of torch saturate instead: past 464 the nearest would be 480, which is NaN
        value = torch.where(value.abs() > 464, torch.nan, value)
    written = value.reshape(-1).to(DTYPES[code])
    _read_as(raw, code, values.numel()).copy_(written)
    return bool(written.to(torch.float64).isfinite().all())
