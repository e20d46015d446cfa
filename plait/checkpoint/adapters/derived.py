"""Tensors of a base with an adapter on them, made on demand: W + s B A, DoRA's rescaling of it, biases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plait.checkpoint.elements import load
from plait.checkpoint.loops import run_loop
from plait.checkpoint.needs import made_bytes
from plait.checkpoint.types import StoredTensor
from plait.dtypes import DTYPES
from plait.ops.codec import KINDS
from plait.ops.scratch import empty, tile_scope

if TYPE_CHECKING:
    from plait.checkpoint.io import FileReader

__all__ = ["AddedBias", "LowRank"]

_BLOCK = 1024  # columns whose rows of A stay in the cache while rows of the product pass
_AT_ONCE = 1 << 18  # elements of the pass over a tensor that column norms need
Floats = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class LowRank:
    """base + scaling * B A, in float32 (in float64 on a float64 base); see `transposed` for the layouts.

    With a magnitude (DoRA, Liu et al. 2024, <https://arxiv.org/abs/2402.09353>, equation 5) every output's weights are
    then given that length.
    """

    base: StoredTensor
    """`[out, in]`, or `[out, in, *kernel]` of a convolution; `[in, out]` if transposed."""
    down: StoredTensor
    """A, `[rank, in]` or `[rank, in, *kernel]`."""
    up: StoredTensor
    """B, `[out, rank]` or `[out, rank, 1, …]`."""
    scaling: float
    transposed: bool = False
    """Whether the base is stored as `[in, out]`: transformers' Conv1D, and embeddings."""
    magnitude: StoredTensor | None = None
    """`[out]`, perhaps with axes of length 1."""

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The base first."""
        return (self.base, self.down, self.up, *([self.magnitude] if self.magnitude else []))

    def needs(self, count: int) -> tuple[int, int]:
        """See `plait.checkpoint.needs`: the base's bytes, whole rows or columns of floats; both factors."""
        size = np.dtype(_kind(self.base)).itemsize
        work = count * DTYPES[self.base.dtype].size + size * (self.base.shape[0] + _BLOCK)
        kept = size * (self.down.size + self.up.size)
        if self.magnitude is not None:
            columns = self.base.size // self.base.shape[0]
            work += size * (max(count, _AT_ONCE if self.transposed else 0) + 2 * columns)
            kept += size * self.base.shape[-1] if self.transposed else 0
        stored = [made_bytes(part, count) for part in self.parts]
        # A factor is widened, and turned, before it is kept.
        factor = 2 * size * max(self.down.size, self.up.size)
        return work + factor + max(one for one, _ in stored), kept + sum(one for _, one in stored)

    def read(self, reader: FileReader, start: int, out: npt.NDArray[np.uint8]) -> None:
        """Make the elements from `start` on."""
        with _floats(out, _kind(self.base)) as values:
            if self.magnitude is None:
                self._sum(reader, start, values)
            elif self.transposed:
                self._by_column(reader, start, values)
            else:
                self._by_row(reader, start, values)

    def _sum(self, reader: FileReader, start: int, values: Floats) -> None:
        _read(reader, self.base, start, values)
        left, right = self._factors(reader)
        with tile_scope():
            scaling, total = np.array([self.scaling], values.dtype), empty((_BLOCK,), values.dtype)
            run_loop("adapters.kernels", "add_product_run", values, start, left, right, scaling, total)

    def _factors(self, reader: FileReader) -> tuple[Floats, Floats]:
        """Return `[rows, rank]` and `[rank, columns]` of the base as it is stored."""
        kind = _kind(self.base)

        def matrix(tensor: StoredTensor, rows: int) -> Floats:
            whole = _whole(reader, tensor, kind).reshape(rows, -1)
            return np.ascontiguousarray(whole.T if self.transposed else whole)

        down = reader.kept((self.down, kind, self.transposed), lambda: matrix(self.down, self.down.shape[0]))
        up = reader.kept((self.up, kind, self.transposed), lambda: matrix(self.up, self.up.shape[0]))
        return (down, up) if self.transposed else (up, down)

    def _by_row(self, reader: FileReader, start: int, values: Floats) -> None:
        """Whole rows are made, for the length of each."""
        columns = self.base.size // self.base.shape[0]
        first, last = start // columns, -(-(start + len(values)) // columns)
        lengths = self._lengths(reader)[first:last]
        with tile_scope():
            exact = len(values) == (last - first) * columns
            rows = values if exact else empty(((last - first) * columns,), values.dtype)
            self._sum(reader, first * columns, rows)
            run_loop("adapters.kernels", "divide_rows_run", rows, columns, lengths, empty((8,), np.float64))
            if not exact:
                values[:] = rows[start - first * columns :][: len(values)]

    def _by_column(self, reader: FileReader, start: int, values: Floats) -> None:
        """The lengths need one pass over the whole tensor, once a thread."""

        def factor() -> Floats:
            columns = self.base.shape[1]
            squares = np.zeros(columns)
            step = max(1, _AT_ONCE // columns) * columns
            for begin in range(0, self.base.size, step):
                rows = np.empty(min(step, self.base.size - begin), values.dtype)
                self._sum(reader, begin, rows)
                run_loop("adapters.kernels", "column_squares_run", rows, squares)
            return np.asarray(self._lengths(reader) / np.sqrt(squares).astype(values.dtype))

        kept = reader.kept((self, "factor"), factor)
        self._sum(reader, start, values)
        run_loop("adapters.kernels", "scale_columns_run", values, start, kept)

    def _lengths(self, reader: FileReader) -> Floats:
        if self.magnitude is None:
            raise AssertionError("only DoRA has magnitudes")
        return _whole(reader, self.magnitude, _kind(self.base))


@dataclass(frozen=True, slots=True)
class AddedBias:
    """base + scaling * bias: the bias of a LoRA's B, on its module's own."""

    base: StoredTensor
    bias: StoredTensor
    scaling: float

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The base first."""
        return self.base, self.bias

    def needs(self, count: int) -> tuple[int, int]:
        """See `plait.checkpoint.needs`: what is added, and as stored."""
        stored = [made_bytes(part, count) for part in self.parts]
        return 24 * count + max(work for work, _ in stored), sum(kept for _, kept in stored)

    def read(self, reader: FileReader, start: int, out: npt.NDArray[np.uint8]) -> None:
        """Make the elements from `start` on."""
        with _floats(out, _kind(self.base)) as values:
            _read(reader, self.base, start, values)
            added = np.empty_like(values)
            _read(reader, self.bias, start, added)
            np.add(values, values.dtype.type(self.scaling) * added, out=values)


@contextmanager
def _floats(raw: npt.NDArray[np.uint8], kind: type[np.floating[Any]]) -> Iterator[Floats]:
    """Show raw bytes as floats for a while; through a copy where they do not lie as floats must."""
    view: Floats = raw.view(kind)
    values: Floats = view if view.flags.aligned else np.empty(view.shape, kind)
    yield values
    if values is not view:
        raw[:] = values.view(np.uint8)


def _kind(base: StoredTensor) -> type[np.floating[Any]]:
    return np.float64 if base.dtype == "F64" else np.float32


def _read(reader: FileReader, tensor: StoredTensor, start: int, values: Floats) -> None:
    with tile_scope():
        raw = empty((len(values) * DTYPES[tensor.dtype].size,), np.uint8)
        reader.read_elements(tensor, start, raw)
        if tensor.dtype in KINDS:
            load(raw, tensor.dtype, values)
            return
        from plait.ops.codec import decode  # Numba, for rare types alone

        decode(raw, tensor.dtype, values)  # what is not finite stays so, and is told where it is merged


def _whole(reader: FileReader, tensor: StoredTensor, kind: type[np.floating[Any]]) -> Floats:
    values = np.empty(tensor.size, kind)
    _read(reader, tensor, 0, values)
    return values
