"""The nearest matrix of low rank: by random projection, or by the Gram matrix of the shorter side.

Random projection with power iterations: Halko, Martinsson and Tropp 2011, https://arxiv.org/abs/0909.4061, algorithms
4.4 (the range) and 5.1 (the decomposition in it). Eckart and Young: what the largest singular values keep is optimal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plait.errors import ArgumentError

__all__ = ["Factors", "Wanted", "low_rank"]

Matrix = npt.NDArray[np.float32]

_MORE = 16
"""Columns drawn beside those wanted (the paper's oversampling)."""
_POWERS = 3
"""Power iterations: deltas of fine-tuning have flat spectra, where fewer lose a percent of the error."""
_SMALL = 256
"""Rows or columns up to which the Gram matrix is quicker, whatever the rank."""
_BLOCK = 1 << 22
"""Entries that are held in float64 at a time."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How much to keep: exactly one of the three."""

    rank: int | None = None
    """A number of singular values, 1 or more."""
    energy: float | None = None
    """The least share of the sum of squared singular values, in (0, 1)."""
    error: float | None = None
    """The most relative error, of Frobenius norms, in (0, 1)."""

    def __post_init__(self) -> None:
        given = {name: value for name in ("rank", "energy", "error") if (value := getattr(self, name)) is not None}
        if len(given) != 1:
            told = ", ".join(f"{name}={value}" for name, value in given.items()) or "none"
            raise ArgumentError(f"How much to keep is told by one of rank, energy and error, not by {told}.")
        ((name, value),) = given.items()
        if name == "rank" and (isinstance(value, bool) or value != int(value) or value < 1):
            raise ArgumentError(f"rank is a whole number from 1 up, not {value}.")
        if name != "rank" and not 0 < value < 1:
            raise ArgumentError(f"{name} is a fraction between 0 and 1, not {value}.")

    def enough(self, squares: npt.NDArray[np.float64], total: float) -> int | None:
        """Return how many of the `squares` of singular values, the largest first, do; None when all do not.

        >>> Wanted(energy=0.9).enough(np.array([90.0, 9.0, 1.0]), 100.0)
        1
        >>> Wanted(error=0.1).enough(np.array([90.0, 9.0, 1.0]), 100.0)
        2
        """
        if self.rank is not None:
            return min(self.rank, len(squares))
        lost = 1 - self.energy if self.energy is not None else (self.error or 0) ** 2
        left = total - np.cumsum(squares)
        found = np.flatnonzero(left <= lost * total * (1 + 1e-9))  # 1 - 0.9 is a little less than 0.1
        return int(found[0]) + 1 if len(found) else None


@dataclass(frozen=True, slots=True)
class Factors:
    """up @ down is near the matrix."""

    up: Matrix
    """`[m, r]`."""
    down: Matrix
    """`[r, n]`. The singular values are shared out evenly: each factor has their square roots."""
    error: float
    """Frobenius norm of what is missing over that of the matrix; of these very float32 numbers."""
    norm: float
    """Frobenius norm of the matrix."""

    @property
    def rank(self) -> int:
        """Inner size of the product; 0 for a matrix of zeros."""
        return len(self.down)


def low_rank(matrix: Matrix, wanted: Wanted, rng: np.random.Generator) -> Factors:
    """Factor a matrix `[m, n]` of finite float32 numbers, as near as its rank allows.

    Args:
        matrix: it is not written to.
        wanted: the rank, or what decides it; the rank is never more than min(m, n).
        rng: where the projection is drawn from; the result depends on it in the last digits only.

    >>> made = low_rank(np.outer([1, 2, 3], [1, 1]).astype(np.float32), Wanted(rank=1), np.random.default_rng(0))
    >>> made.rank, made.error < 1e-6
    (1, True)
    """
    total = _square(matrix)
    if total == 0:
        rows, columns = matrix.shape
        return Factors(np.zeros((rows, 0), np.float32), np.zeros((0, columns), np.float32), 0.0, 0.0)
    found = _by_projection(matrix, wanted, total, rng)
    left, right = _by_gram(matrix, wanted, total) if found is None else found
    roots = np.sqrt(np.linalg.norm(right.astype(np.float64), axis=1))
    kept = roots > 0
    roots = roots[kept]
    up = np.ascontiguousarray(left[:, kept] * roots, np.float32)
    down = np.ascontiguousarray(right[kept] / roots[:, None], np.float32)
    return Factors(up, down, _missing(matrix, up, down, total), float(np.sqrt(total)))


def _by_projection(
    matrix: Matrix, wanted: Wanted, total: float, rng: np.random.Generator
) -> tuple[Matrix, Matrix] | None:
    """Find (U `[m, r]`, Uᵀ matrix `[r, n]`) in a random subspace that grows until it keeps enough.

    None where the subspace would be so large that the Gram matrix costs less.
    """
    short = min(matrix.shape)
    columns = (wanted.rank or 48) + _MORE
    while short > _SMALL and 4 * columns < short:
        basis = _range_of(matrix, columns, rng)
        inside = basis.T @ matrix
        # of the rows' Gram matrix, so that no SVD of [r, n] is needed; the values are of no use below its rounding
        turned, squares = _eigen(inside)
        rank = wanted.enough(squares, total)
        if rank is not None and rank + _MORE // 2 <= columns:
            chosen = turned[:, :rank].astype(np.float32)
            return basis @ chosen, chosen.T @ inside
        columns *= 2
    return None


def _range_of(matrix: Matrix, columns: int, rng: np.random.Generator) -> Matrix:
    """Make an orthonormal `[m, columns]` whose span nearly holds the largest singular vectors (algorithm 4.4)."""
    basis = _orthonormal(matrix @ rng.standard_normal((matrix.shape[1], columns), dtype=np.float32))
    for _ in range(_POWERS):
        basis = _orthonormal(matrix @ _orthonormal(matrix.T @ basis))
    return basis


def _orthonormal(columns: Matrix) -> Matrix:
    return np.asarray(np.linalg.qr(columns)[0], np.float32)


def _by_gram(matrix: Matrix, wanted: Wanted, total: float) -> tuple[Matrix, Matrix]:
    """Find (U, Uᵀ matrix) by the eigenvectors of the shorter side's Gram matrix in float64."""
    wide = matrix.shape[0] <= matrix.shape[1]
    turned, squares = _eigen(matrix if wide else matrix.T)
    rank = wanted.enough(squares, total) or len(squares)
    chosen = turned[:, :rank].astype(np.float32)
    if wide:
        return chosen, chosen.T @ matrix
    image = matrix @ chosen
    lengths = np.linalg.norm(image.astype(np.float64), axis=0)
    lengths[lengths == 0] = 1
    return np.asarray(image / lengths, np.float32), np.asarray(chosen.T * lengths[:, None], np.float32)


def _eigen(matrix: Matrix) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the left singular vectors `[m, m]` and the squares of the singular values `[m]`, the largest first."""
    rows, columns = matrix.shape
    gram = np.zeros((rows, rows))
    step = max(1, _BLOCK // max(rows, 1))
    for low in range(0, columns, step):
        part = matrix[:, low : low + step].astype(np.float64)
        gram += part @ part.T
    values, vectors = np.linalg.eigh(gram)
    return vectors[:, ::-1], np.maximum(values[::-1], 0)


def _square(matrix: Matrix) -> float:
    step = max(1, _BLOCK // max(matrix.shape[1], 1))
    return float(
        sum(np.square(matrix[low : low + step], dtype=np.float64).sum() for low in range(0, len(matrix), step))
    )


def _missing(matrix: Matrix, up: Matrix, down: Matrix, total: float) -> float:
    step = max(1, _BLOCK // max(matrix.shape[1], 1))
    parts = (matrix[low : low + step] - up[low : low + step] @ down for low in range(0, len(matrix), step))
    return float(np.sqrt(sum(np.square(part, dtype=np.float64).sum() for part in parts) / total))
