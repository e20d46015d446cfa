"""The header of a GGUF file: its metadata, and where its tensors lie.

Read here rather than by the gguf package, whose reader needs seven seconds for a vocabulary of 150,000 tokens. Source:
the GGUF specification, versions 2 and 3 (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from plait.checkpoint.names import check_name
from plait.errors import CheckpointError

__all__ = ["Header", "Packed", "gguf_package", "read_gguf_header"]

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}
_MOST_DIMENSIONS = 4
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Packed:
    """One tensor as a GGUF file holds it."""

    name: str
    kind: str
    """ggml's name of its type: F32, Q4_K and so on."""
    shape: tuple[int, ...]
    """Rows first, as torch has it; the file has it the other way round."""
    file: str
    offset: int
    """Bytes from the file's start."""
    nbytes: int
    block: int
    """Elements of a row that are stored together; 1 for plain numbers."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, the last axis."""
        return self.nbytes // max(1, prod(self.shape[:-1]))


@dataclass(frozen=True)
class Header:
    """All that a GGUF file says before its weights."""

    file: str
    values: Mapping[str, Any]
    """Metadata: numbers, texts, lists of texts, numpy arrays of numbers."""
    tensors: tuple[Packed, ...]

    def number(self, key: str, default: float | None = None) -> Any:
        """Return one number, `default` where it is missing.

        Raises:
            CheckpointError: it is something else, such as a list with one number a layer.
        """
        value = self.values.get(key, default)
        if value is None or isinstance(value, int | float):
            return value
        if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
            return value[0].item()  # one number a layer, and all of them the same
        raise CheckpointError(f"{self.file}: {key} is not one number; layers that differ in it are not read from GGUF.")


def gguf_package(what: str = "GGUF files") -> Any:
    """Import gguf.

    Raises:
        CheckpointError: it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise CheckpointError(f"{what} need the package gguf: pip install 'plait[gguf]'.") from error
    return gguf


def read_gguf_header(file: str) -> Header:
    """Read metadata and the places of all tensors; no weight is read.

    Raises:
        CheckpointError: it is no GGUF file, of another version, cut short, or holds a type that is not known.
    """
    try:
        with Path(file).open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Parser(file, data).header()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}.") from error
    except (struct.error, IndexError, ValueError) as error:  # mmap of an empty file is a ValueError, too
        raise CheckpointError(f"{file}: truncated, or not a GGUF file: its header ends too soon.") from error


class _Parser:
    def __init__(self, file: str, data: mmap.mmap) -> None:
        self.file, self.data, self.at = file, data, 0

    def header(self) -> Header:
        if self.data[:4] != b"GGUF":
            raise CheckpointError(f"{self.file}: not a GGUF file: it does not begin with 'GGUF'.")
        self.at = 4
        version = self._number("<u4")
        if version not in {2, 3}:
            kind = "big-endian" if version & 0xFFFF == 0 else f"version {version}"
            raise CheckpointError(f"{self.file}: GGUF, {kind}; plait reads versions 2 and 3, little-endian.")
        tensors, values = self._number("<u8"), self._number("<u8")
        found: dict[str, Any] = {}
        for _ in range(values):
            key = self._text()
            found[key] = self._value(self._number("<u4"))
        stored = [self._tensor() for _ in range(tensors)]
        return Header(self.file, found, self._placed(stored, found.get("general.alignment", 32)))

    def _number(self, code: str) -> Any:
        kind = np.dtype(code)
        (value,) = np.frombuffer(self._take(kind.itemsize), kind)
        return value.item()

    def _take(self, count: int) -> bytes:
        raw = self.data[self.at : self.at + count]
        if len(raw) < count:
            raise ValueError("the end of the file")
        self.at += count
        return raw

    def _text(self) -> str:
        (length,) = _LENGTH.unpack_from(self.data, self.at)
        self.at += 8
        return self._take(length).decode("utf-8", "surrogateescape")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise CheckpointError(f"{self.file}: metadata of an unknown type, {kind}.")
        value = self._number(_SCALARS[kind])
        return float(str(np.float32(value))) if kind == 6 else value  # 1e-05, not 9.999999747378752e-06

    def _array(self) -> Any:
        kind, count = self._number("<u4"), self._number("<u8")
        if kind == _STRING:
            if count > len(self.data):
                raise ValueError("more texts than bytes")
            return [self._text() for _ in range(count)]
        if kind not in _SCALARS:
            raise CheckpointError(f"{self.file}: metadata has a list of an unknown type, {kind}.")
        dtype = np.dtype(_SCALARS[kind])
        return np.frombuffer(self._take(count * dtype.itemsize), dtype)

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text()
        check_name(self.file, name)
        count = self._number("<u4")
        if count > _MOST_DIMENSIONS:
            raise CheckpointError(f"{self.file}: {name} has {count} dimensions; GGUF has at most {_MOST_DIMENSIONS}.")
        shape = tuple(self._number("<u8") for _ in range(count))
        return name, shape[::-1], self._number("<u4"), self._number("<u8")

    def _placed(self, stored: list[tuple[str, tuple[int, ...], int, int]], alignment: Any) -> tuple[Packed, ...]:
        if not isinstance(alignment, int) or alignment < 1:
            raise CheckpointError(f"{self.file}: general.alignment is {alignment!r}; a positive number was expected.")
        start = -(-self.at // alignment) * alignment
        sizes = _sizes()
        found: dict[str, Packed] = {}
        for name, shape, code, offset in stored:
            if name in found:
                raise CheckpointError(f"{self.file}: two tensors are called {name}.")
            if code not in sizes:
                raise CheckpointError(f"{self.file}: {name} has type {code}, which the package gguf does not know.")
            kind, block, size = sizes[code]
            nbytes = prod(shape) // block * size
            if shape and shape[-1] % block:
                raise CheckpointError(f"{self.file}: {name}: rows of {shape[-1]} are no whole blocks of {kind}.")
            if start + offset + nbytes > len(self.data):
                raise CheckpointError(
                    f"{self.file}: truncated: {name} ends at byte {start + offset + nbytes}, the file at {len(self.data)}."
                )
            found[name] = Packed(name, kind, shape, self.file, start + offset, nbytes, block)
        return tuple(found.values())


def _sizes() -> dict[int, tuple[str, int, int]]:
    """Code of a ggml type -> its name, elements in a block, bytes of a block."""
    sizes: Mapping[Any, tuple[int, int]] = gguf_package().GGML_QUANT_SIZES

    return {int(kind): (str(kind.name), *size) for kind, size in sizes.items()}
