"""Weights of a GGUF file as transformers has them: blocks dequantised, rows of heads put back in order, norms less their 1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plait.checkpoint.dequantise.bands import KEPT, Floats, raw_of
from plait.checkpoint.gguf.header import gguf_package
from plait.checkpoint.types import StoredTensor

if TYPE_CHECKING:
    from plait.checkpoint.io import FileReader

__all__ = ["Rows", "in_order", "interleaved"]

_BAND = 1 << 17


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one tensor, made in float32 from whole blocks."""

    stored: StoredTensor
    """All its bytes, as U8."""
    kind: str
    """ggml's name of its type."""
    columns: int
    row_bytes: int
    heads: int = 0
    """Heads whose rows are interleaved; 0 for rows in order."""
    minus: float = 0.0
    """Taken away from every number."""

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The one tensor."""
        return (self.stored,)

    @property
    def band(self) -> int:
        """About how many elements to make at once: whole heads, where their rows are interleaved."""
        return self._head_rows * self.columns if self.heads else _BAND

    @property
    def _head_rows(self) -> int:
        return self.stored.size // self.row_bytes // self.heads

    def rows(self, reader: FileReader, low: int, out: Floats) -> None:
        """Make rows from `low` on, in transformers' order."""
        if not self.heads:
            self._make(reader, low, out)
        else:
            size = self._head_rows
            for head in range(low // size, -(-(low + len(out)) // size)):
                begin, end = max(low, head * size), min(low + len(out), (head + 1) * size)
                whole = reader.kept((self, head), partial(self._head, reader, head), most=KEPT)
                out[begin - low : end - low] = whole[begin - head * size : end - head * size]
        if self.minus:
            out -= np.float32(self.minus)

    def _head(self, reader: FileReader, head: int) -> Floats:
        size = self._head_rows
        rows = np.empty((size, self.columns), np.float32)
        self._make(reader, head * size, rows)
        ordered: Floats = rows[in_order(size)]
        return ordered

    def _make(self, reader: FileReader, low: int, out: Floats) -> None:
        """Make rows as they are stored."""
        from plait.ops.codec import CODES, decode  # Numba is needed only where weights are read

        raw = raw_of(reader, self.stored, low * self.row_bytes, len(out) * self.row_bytes)
        if self.kind in CODES:
            decode(raw, self.kind, out.reshape(-1))
            return
        gguf = gguf_package()
        kind = gguf.GGMLQuantizationType[self.kind]
        with np.errstate(all="ignore"):  # what is not finite the engine tells, with the tensor's name
            out[:] = gguf.quants.dequantize(raw.reshape(len(out), -1), kind).reshape(out.shape)


def in_order(rows: int) -> npt.NDArray[Any]:
    """Where the rows of one head lie in GGUF: of each pair of neighbours one is of the first half, one of the second.

    >>> in_order(6).tolist()
    [0, 2, 4, 1, 3, 5]
    """
    return np.ascontiguousarray(np.arange(rows).reshape(-1, 2).T).reshape(-1)


def interleaved(rows: int) -> npt.NDArray[Any]:
    """Do the opposite of `in_order`: where the rows of GGUF's head lie in transformers'.

    >>> interleaved(6).tolist()
    [0, 3, 1, 4, 2, 5]
    """
    return np.ascontiguousarray(np.arange(rows).reshape(2, -1).T).reshape(-1)
