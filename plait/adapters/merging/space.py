"""The space that the adapters of a module span, and each change in it as a small matrix.

Core Space: Panariello et al. 2025, https://arxiv.org/abs/2509.17786. The bases are the left singular vectors of all B side
by side and the right ones of all A below each other; in them a change is a matrix of the adapters' ranks together, and
nothing is lost. Scaling goes into A and B alike, by its root.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from plait.adapters.merging.modules import Joined, Part
from plait.checkpoint import FileReader, StoredTensor
from plait.dtypes import DTYPES
from plait.errors import MergeError
from plait.ops.codec import decode

__all__ = ["Core", "Matrix", "Nothing", "ScaledBias", "Space", "factors_of", "read_values", "space_of"]

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Space:
    """Bases and cores of one module: scaling * up @ down of adapter i is `left @ cores[i] @ right`."""

    left: Matrix
    """`[out, p]`, orthonormal columns."""
    right: Matrix
    """`[q, in]`, orthonormal rows."""
    cores: Matrix
    """`[adapters that have the module, p, q]`."""


def space_of(reader: FileReader, joined: Joined) -> Space:
    """Read the factors of a module and find the space that they span.

    Raises:
        MergeError: a factor has NaN or infinity.
    """
    pairs = [factors_of(reader, part) for part in joined.parts]
    left, ups = _basis(np.concatenate([up * sqrt(abs(s)) for (up, _), s in _scaled(pairs, joined)], axis=1))
    right, downs = _basis(np.concatenate([down.T * sqrt(abs(s)) for (_, down), s in _scaled(pairs, joined)], axis=1))
    ends = np.cumsum([part.rank for part in joined.parts])
    cores = [
        np.sign(part.scaling) * (ups[:, end - part.rank : end] @ downs[:, end - part.rank : end].T)
        for part, end in zip(joined.parts, ends, strict=True)
    ]
    return Space(left, right.T, np.stack(cores))


def _scaled(pairs: list[tuple[Matrix, Matrix]], joined: Joined) -> list[tuple[tuple[Matrix, Matrix], float]]:
    return [(pair, part.scaling) for pair, part in zip(pairs, joined.parts, strict=True)]


def _basis(columns: Matrix) -> tuple[Matrix, Matrix]:
    """Return the left singular vectors of `[n, r]`, and the columns in their terms; no SVD is larger than `[r, r]`."""
    orthonormal, triangle = np.linalg.qr(columns)
    turned = np.linalg.svd(triangle, full_matrices=False)[0]
    return np.asarray(orthonormal @ turned), np.asarray(turned.T @ triangle)


def factors_of(reader: FileReader, part: Part) -> tuple[Matrix, Matrix]:
    """Read up `[out, rank]` and down `[rank, in]` as they are stored, without the scaling."""
    up, down = read_values(reader, part.up), read_values(reader, part.down)
    return up.reshape(-1, part.rank), down.reshape(part.rank, -1)


def read_values(reader: FileReader, tensor: StoredTensor) -> Matrix:
    """Read all of a tensor. Raises MergeError where it is not finite."""
    raw = np.empty(tensor.nbytes, np.uint8)
    reader.read_elements(tensor, 0, raw)
    values = np.empty(tensor.size)
    if not decode(raw, tensor.dtype, values):
        raise MergeError(f"{tensor.file}: {tensor.name} has NaN or infinity. Leave the adapter out, or mend it.")
    return values


@dataclass(frozen=True, slots=True)
class Core:
    """One adapter's change of a module, in the space that all adapters span there; made when it is read."""

    joined: Joined
    index: int
    """Which of the module's parts."""

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The adapter's own factors; the bases are read off all of them."""
        return self.joined.parts[self.index].down, self.joined.parts[self.index].up

    def read(self, reader: FileReader, start: int, out: npt.NDArray[np.uint8]) -> None:
        """Make the elements from `start` on, in float32."""
        cores = reader.kept((self.joined, "cores"), lambda: space_of(reader, self.joined).cores.astype("<f4"))
        out[:] = cores[self.index].reshape(-1)[start : start + len(out) // 4].view(np.uint8)


@dataclass(frozen=True, slots=True)
class Nothing:
    """Zeros: what an adapter changes where it has no module."""

    beside: StoredTensor
    """A tensor of another adapter that has it."""

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """Nothing of it is read."""
        return (self.beside,)

    @property
    def mark(self) -> str:
        """Tells it from the tensor."""
        return "zeros"

    def read(self, reader: FileReader, start: int, out: npt.NDArray[np.uint8]) -> None:
        """Write zeros."""
        del reader, start
        out[:] = 0


@dataclass(frozen=True, slots=True)
class ScaledBias:
    """scaling * bias of B, in float32."""

    bias: StoredTensor
    scaling: float

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The bias."""
        return (self.bias,)

    def read(self, reader: FileReader, start: int, out: npt.NDArray[np.uint8]) -> None:
        """Make the elements from `start` on."""
        width = DTYPES[self.bias.dtype].size
        raw = np.empty(len(out) // 4 * width, np.uint8)
        reader.read_elements(self.bias, start, raw)
        values = np.empty(len(out) // 4)
        decode(raw, self.bias.dtype, values)
        out[:] = (self.scaling * values).astype("<f4").view(np.uint8)
