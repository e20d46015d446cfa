"""Reading: the difference of two tensors in float32, and whether there is any."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from plait.adapters.choose import Pair
from plait.checkpoint import FileReader, StoredTensor
from plait.dtypes import DTYPES
from plait.errors import MergeError
from plait.ops.codec import decode, decode_delta

__all__ = ["differs", "read_delta"]

_TILE = 1 << 20
"""Elements read at a time."""


def read_delta(reader: FileReader, pair: Pair) -> npt.NDArray[np.float32]:
    """Read model − base, each exact in float32 (from float64: rounded), in the shape of the tensor.

    Raises:
        MergeError: one of them has NaN or infinity, or the difference is too large for float32.
    """
    out = np.empty(pair.base.size, np.float32)
    before = np.empty(min(_TILE, pair.base.size), np.float32)
    for start in range(0, len(out), _TILE):
        part = out[start : start + _TILE]
        base = before[: len(part)]
        finite = decode(_raw(reader, pair.base, start, len(part)), pair.base.dtype, base)
        finite &= decode_delta(_raw(reader, pair.model, start, len(part)), pair.model.dtype, base, part)
        if not finite:
            raise MergeError(f"{pair.name} has NaN or infinity, in the base or in the model. Exclude it, or mend it.")
    return out.reshape(pair.base.shape)


def differs(reader: FileReader, pair: Pair) -> bool:
    """Whether the model's values are other than the base's; -0 and 0 are one value, element types do not matter."""
    floats = DTYPES[pair.base.dtype].is_float and DTYPES[pair.model.dtype].is_float
    for start in range(0, pair.base.size, _TILE):
        count = min(_TILE, pair.base.size - start)
        raw = _raw(reader, pair.base, start, count), _raw(reader, pair.model, start, count)
        if pair.base.dtype == pair.model.dtype and np.array_equal(*raw):
            continue
        if not floats:
            return True
        first, second = np.empty(count), np.empty(count)
        decode(raw[0], pair.base.dtype, first)
        decode(raw[1], pair.model.dtype, second)
        if not np.array_equal(first, second):
            return True
    return False


def _raw(reader: FileReader, tensor: StoredTensor, start: int, count: int) -> npt.NDArray[np.uint8]:
    raw = np.empty(count * DTYPES[tensor.dtype].size, np.uint8)
    reader.read_elements(tensor, start, raw)
    return raw
