"""A weight made band by band, a band being some of its rows, from the tensors that a quantised checkpoint holds for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from plait.checkpoint.types import StoredTensor
from plait.dtypes import DTYPES

if TYPE_CHECKING:
    from plait.checkpoint.io import FileReader

__all__ = ["KEPT", "Dequantised", "Floats", "Form", "floats_of", "numbers", "powers_of_two", "raw_of"]

Floats = npt.NDArray[np.float32]
KEPT = 1 << 25  # bytes that a thread keeps of bands, scales and packed words


class Form(Protocol):
    """How one quantised format holds one weight; frozen and hashable."""

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """All tensors that the weight is made from."""
        ...

    @property
    def band(self) -> int:
        """About how many elements to make at once."""
        ...

    def rows(self, reader: FileReader, low: int, out: Floats) -> None:
        """Write rows of the weight from `low` on into `out` `[rows, columns]`; axes before the last count as rows."""
        ...


@dataclass(frozen=True, slots=True)
class Dequantised:
    """A weight in a quantised format: made in float32, rounded once to its element type."""

    form: Form
    shape: tuple[int, ...]
    dtype: str

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """All that is read to make the weight."""
        return self.form.parts

    def needs(self, count: int) -> tuple[int, int]:  # noqa: ARG002 - bands are made whole
        """See `plait.checkpoint.needs`. Bytes of a file are widened by what reads them, up to twice over."""
        columns = max(1, self.shape[-1])
        band = max(1, self.form.band // columns) * columns
        others = sum(part.size for part in self.parts[1:])
        return band * (3 * 4 + DTYPES[self.dtype].size) + 4 * others, KEPT + 4 * band

    def read(self, reader: FileReader, start: int, out: npt.NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes of the weight's elements from `start` on; each thread keeps its last bands."""
        size = DTYPES[self.dtype].size
        columns = self.shape[-1]
        band = max(1, self.form.band // columns) * columns * size
        position, done = start * size, 0
        while done < len(out):
            which, at = divmod(position + done, band)
            made = reader.kept((self, which), partial(self._made, reader, which, band), most=KEPT)
            part = made[at : at + len(out) - done]
            out[done : done + len(part)] = part
            done += len(part)

    def _made(self, reader: FileReader, which: int, band: int) -> npt.NDArray[np.uint8]:
        from plait.ops.codec import encode  # Numba is needed only where weights are read

        columns, size = self.shape[-1], DTYPES[self.dtype].size
        row = columns * size
        total = prod(self.shape[:-1])
        low = which * band // row
        high = min(low + band // row, total)
        floats = np.empty((high - low, columns), np.float32)
        self.form.rows(reader, low, floats)
        raw = np.empty((high - low) * row, np.uint8)
        encode(floats.reshape(-1), self.dtype, raw)  # what is not finite the engine tells, with the tensor's name
        return raw


def raw_of(reader: FileReader, tensor: StoredTensor, start: int, count: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of `count` elements from `start` on."""
    raw = np.empty(count * DTYPES[tensor.dtype].size, np.uint8)
    reader.read_elements(tensor, start, raw)
    return raw


def numbers(reader: FileReader, tensor: StoredTensor) -> Floats:
    """Return all of a small tensor, such as scales, as float32 in its shape; each thread keeps it.

    F8_E8M0, and U8 in its place, are exponents: 2 ** (byte - 127).
    """

    def read() -> npt.NDArray[Any]:
        return floats_of(raw_of(reader, tensor, 0, tensor.size), tensor.dtype).reshape(tensor.shape)

    return reader.kept((tensor, "numbers"), read, most=KEPT)


def floats_of(raw: npt.NDArray[np.uint8], dtype: str) -> Floats:
    """Return a few elements as new float32; F8_E8M0, and U8 in its place, are exponents: 2 ** (byte - 127).

    >>> floats_of(np.array([0x80, 0x3F], np.uint8), "BF16").tolist()
    [1.0]
    """
    if dtype in {"F8_E8M0", "U8"}:
        return powers_of_two(raw)
    if dtype == "BF16":
        wide: Floats = (raw.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
        return wide
    name = DTYPES[dtype].name
    if not DTYPES[dtype].is_float or dtype in {"F16", "F32", "F64"}:
        floats: Floats = raw.view(name).astype(np.float32)
        return floats
    from plait.ops.codec import decode

    out = np.empty(len(raw) // DTYPES[dtype].size, np.float32)
    decode(raw, dtype, out)
    return out


def powers_of_two(raw: npt.NDArray[np.uint8]) -> Floats:
    """Read exponents: 2 ** (byte - 127).

    >>> powers_of_two(np.array([126, 127, 130], np.uint8)).tolist()
    [0.5, 1.0, 8.0]
    """
    powers: Floats = np.ldexp(np.float32(1), raw.astype(np.int32) - 127)
    return powers
