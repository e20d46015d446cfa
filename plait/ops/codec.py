"""Raw bytes of a checkpoint to floats and back, checking on the way that all are finite.

Element types by safetensors' code: BF16, F16, F32, F64, F8_E4M3, F8_E5M2. Raw bytes are uint8 `[nbytes]`, little-endian;
floats are float32 or float64. On numpy arrays one fused Numba pass; on torch tensors the same results
(NaN's sign and payload aside), at the price of a device synchronisation for the returned flag.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from plait.ops.sides import Array, side

__all__ = ["CODES", "KINDS", "decode", "decode_delta", "encode"]

CODES = ("BF16", "F16", "F32", "F64", "F8_E4M3", "F8_E5M2")
KINDS: dict[str, tuple[int, Any]] = {"BF16": (0, np.uint16), "F16": (1, np.uint16), "F32": (2, np.float32)}
"""Codes of the types that there are loops over raw elements for; by what number these know each, and see its bytes as."""


def decode(raw: Array, dtype_code: str, out: Array) -> bool:
    """Write the elements that `raw` holds into `out`, `[n]` or any C-contiguous shape; return whether all are finite.

    Exact, save F64 to float32, which rounds to nearest even (and may overflow, which is not finite).

    Raises:
        ValueError: an element type without arithmetic, or sizes that do not match.

    >>> import numpy as np
    >>> out = np.empty(2, np.float32)
    >>> decode(np.array([0x80, 0x3F, 0x00, 0xC0], np.uint8), "BF16", out), out.tolist()
    (True, [1.0, -2.0])
    """
    _check(dtype_code)
    return bool(side(out).decode(raw, dtype_code, None, out))


def decode_delta(raw: Array, dtype_code: str, base: Array, out: Array) -> bool:
    """As `decode`, but write value - base; return whether all differences are finite.

    >>> import numpy as np
    >>> out = np.empty(2, np.float32)
    >>> decode_delta(np.array([0x80, 0x3F, 0x00, 0xC0], np.uint8), "BF16", np.array([1, 1], np.float32), out)
    True
    >>> out.tolist()
    [0.0, -3.0]
    """
    _check(dtype_code)
    return bool(side(out).decode(raw, dtype_code, base, out))


def encode(values: Array, dtype_code: str, raw_out: Array, base: Array | None = None) -> bool:
    """Write `values` (plus `base`, added in their own dtype) into `raw_out`; return whether all that was written is finite.

    One rounding to nearest even, subnormals included, from float64 too. What is too large becomes
    infinity (F8_E4M3, which has none: NaN) and is told by the return value.

    Raises:
        ValueError: an element type without arithmetic, or sizes that do not match.

    >>> import numpy as np
    >>> raw = np.empty(4, np.uint8)
    >>> encode(np.array([1.0, 1e5], np.float32), "F16", raw), raw.view(np.float16).tolist()
    (False, [1.0, inf])
    """
    _check(dtype_code)
    return bool(side(values).encode(values, dtype_code, base, raw_out))


def _check(code: str) -> None:
    if code not in CODES:
        raise ValueError(f"no arithmetic on elements of type {code!r}; expected one of {', '.join(CODES)}")
