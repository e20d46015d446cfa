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

__all__ = ["Core", "Matrix", "Nothing", "ScaledBias", "Space", "cores_of", "factors_of", "read_values", "space_of"]

Matrix = npt.NDArray[np.float64]

_SAFE = 1e-8
"""Least square of a singular value, over that of the largest, that is taken from a Gram matrix."""


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
    ups, downs = _stacked(reader, joined)
    (left, ups), (right, downs) = _basis(ups), _basis(downs)
    return Space(left, right.T, _cores(joined, ups, downs))


def cores_of(reader: FileReader, joined: Joined) -> Matrix:
    """Return the cores alone, for half the work. Raises as `space_of`."""
    ups, downs = _stacked(reader, joined)
    return _cores(joined, *(_inside(columns) for columns in (ups, downs)))


def _stacked(reader: FileReader, joined: Joined) -> tuple[Matrix, Matrix]:
    """All B side by side, `[out, total]`, and all A transposed, `[in, total]`, each with the root of its scaling."""
    pairs = [factors_of(reader, part) for part in joined.parts]
    roots = [sqrt(abs(part.scaling)) for part in joined.parts]
    ups = [up * root for (up, _), root in zip(pairs, roots, strict=True)]
    downs = [down.T * root for (_, down), root in zip(pairs, roots, strict=True)]
    return np.concatenate(ups, axis=1), np.concatenate(downs, axis=1)


def _cores(joined: Joined, ups: Matrix, downs: Matrix) -> Matrix:
    ends = np.cumsum([part.rank for part in joined.parts])
    cores = [
        np.sign(part.scaling) * (ups[:, end - part.rank : end] @ downs[:, end - part.rank : end].T)
        for part, end in zip(joined.parts, ends, strict=True)
    ]
    return np.stack(cores)


def _basis(columns: Matrix) -> tuple[Matrix, Matrix]:
    """Return the left singular vectors of `[n, r]`, and the columns in their terms; no decomposition is of n times n."""
    found = _by_gram(columns)
    if found is not None:
        sizes, vectors = found
        return columns @ (vectors / sizes), sizes[:, None] * vectors.T
    orthonormal, triangle = np.linalg.qr(columns)
    turned, inside = _turned(triangle)
    return np.asarray(orthonormal @ turned), inside


def _inside(columns: Matrix) -> Matrix:
    """Return the second of what `_basis` does, to the last bit."""
    found = _by_gram(columns)
    if found is not None:
        return np.asarray(found[0][:, None] * found[1].T)
    return _turned(np.asarray(np.linalg.qr(columns, mode="r")))[1]


def _by_gram(columns: Matrix) -> tuple[Matrix, Matrix] | None:
    """Find singular values `[r]` and right vectors `[r, r]` by the Gram matrix: three times as fast as QR.

    None where the columns are so nearly dependent that its squares would cost more than half of float64's digits.
    """
    if len(columns) < columns.shape[1]:
        return None
    squares, vectors = np.linalg.eigh(columns.T @ columns)
    if not squares[0] > _SAFE * squares[-1]:
        return None
    return np.sqrt(squares[::-1]), np.ascontiguousarray(vectors[:, ::-1])


def _turned(triangle: Matrix) -> tuple[Matrix, Matrix]:
    turned = np.linalg.svd(triangle, full_matrices=False)[0]
    return turned, np.asarray(turned.T @ triangle)


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
        cores = reader.kept((self.joined, "cores"), lambda: cores_of(reader, self.joined).astype("<f4"))
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
