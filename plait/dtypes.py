"""The element types of checkpoints: safetensors codes, the field's names, sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DTYPES", "Dtype", "dtype_by_name"]

Kind = Literal["float", "integer", "bool", "opaque"]


@dataclass(frozen=True, slots=True)
class Dtype:
    """One element type. `code` is safetensors', `name` is numpy's and torch's, `size` in bytes."""

    code: str
    name: str
    size: int
    kind: Kind

    @property
    def is_float(self) -> bool:
        """Whether plait can do arithmetic on it."""
        return self.kind == "float"


DTYPES: dict[str, Dtype] = {
    dtype.code: dtype
    for dtype in (
        Dtype("F64", "float64", 8, "float"),
        Dtype("F32", "float32", 4, "float"),
        Dtype("F16", "float16", 2, "float"),
        Dtype("BF16", "bfloat16", 2, "float"),
        Dtype("F8_E4M3", "float8_e4m3fn", 1, "float"),
        Dtype("F8_E5M2", "float8_e5m2", 1, "float"),
        Dtype("F8_E8M0", "float8_e8m0fnu", 1, "opaque"),
        Dtype("I64", "int64", 8, "integer"),
        Dtype("I32", "int32", 4, "integer"),
        Dtype("I16", "int16", 2, "integer"),
        Dtype("I8", "int8", 1, "integer"),
        Dtype("U64", "uint64", 8, "integer"),
        Dtype("U32", "uint32", 4, "integer"),
        Dtype("U16", "uint16", 2, "integer"),
        Dtype("U8", "uint8", 1, "integer"),
        Dtype("BOOL", "bool", 1, "bool"),
        Dtype("C64", "complex64", 8, "opaque"),
    )
}
_BY_NAME = {dtype.name: dtype for dtype in DTYPES.values()}


def dtype_by_name(name: str) -> Dtype | None:
    """Find an element type by the field's name for it, with or without `torch.`.

    >>> dtype_by_name("torch.bfloat16").code
    'BF16'
    """
    return _BY_NAME.get(name.removeprefix("torch."))
