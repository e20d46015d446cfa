"""The loops of `plait.checkpoint.elements`. `kind` is 0 for bits of bfloat16, 1 for those of float16, 2 for float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from plait.ops.on_cpu.codec import decode_bf16, decode_f16, decode_float, encode_bf16, encode_f16, encode_float
from plait.ops.on_cpu.jit import kernel

__all__ = ["finite_run", "load_run", "store_run"]


@kernel
def load_run(kind: int, raw: Any, values: Any) -> Any:
    """Decode elements; what is not finite stays so."""
    if kind == 0:
        decode_bf16(raw, None, values)
    elif kind == 1:
        decode_f16(raw, None, values)
    else:
        decode_float(raw, None, values)
    return np.int64(0)


@kernel
def store_run(kind: int, values: Any, out: Any) -> Any:
    """Encode to elements; return 0 if all are finite, or else 1."""
    if kind == 0:
        good = encode_bf16(values, None, out)
    elif kind == 1:
        good = encode_f16(values, None, out)
    else:
        good = encode_float(values, None, out)
    return np.int64(0) if good else np.int64(1)


@kernel
def finite_run(kind: int, raw: Any, room: Any) -> Any:
    """Return 0 if all elements are finite, or else 1; they are decoded into `room`, as many at a time as it has."""
    for begin in range(0, len(raw), len(room)):
        part = raw[begin : begin + len(room)]
        values = room[: len(part)]
        if kind == 0:
            good = decode_bf16(part, None, values)
        elif kind == 1:
            good = decode_f16(part, None, values)
        else:
            good = decode_float(part, None, values)
        if not good:
            return np.int64(1)
    return np.int64(0)
