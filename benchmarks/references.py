"""The methods in float64, straight from their papers, to count correctly rounded results against. Slow and plain.

Inputs are float64 arrays of one shape. Nothing here is shared with plait.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Array = np.ndarray
_STEPS = 200


def linear(models: Sequence[Array], weights: Sequence[float], *, normalize: bool = True) -> Array:
    """Wortsman et al. 2022: sum of w_i x_i, divided by the sum of the w_i."""
    total = sum(w * x for w, x in zip(weights, models, strict=True))
    return total / sum(weights) if normalize else total


def task_arithmetic(base: Array, experts: Sequence[Array], weights: Sequence[float], scale: float = 1.0) -> Array:
    """Ilharco et al. 2022: the base plus the scaled sum of weighted deltas."""
    return base + scale * sum(w * (x - base) for w, x in zip(weights, experts, strict=True))


def slerp(first: Array, second: Array, t: float) -> Array:
    """Shoemake 1985, on the flattened tensors; a straight line where |cosine| is above 0.9995."""
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    cosine = float(np.clip(np.vdot(first, second) / norms, -1, 1)) if norms else 1.0
    if abs(cosine) > 0.9995:
        return (1 - t) * first + t * second
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * first + np.sin(t * angle) * second) / np.sin(angle)


def threshold(delta: Array, density: float) -> float:
    """The smallest magnitude that is kept when the largest int(density * n), at least one, are; 0 keeps all."""
    count = max(1, int(density * delta.size))
    flat = np.abs(delta).ravel()
    return 0.0 if count >= flat.size else float(np.partition(flat, flat.size - count)[flat.size - count])


def ties(
    base: Array,
    kept: Sequence[Array],
    weights: Sequence[float],
    scale: float = 1.0,
    *,
    normalize: bool = True,
) -> Array:
    """Yadav et al. 2023, algorithm 1, steps 2 and 3, on deltas that are already trimmed; a zero sum elects plus."""
    weighted = np.stack([w * delta for w, delta in zip(weights, kept, strict=True)])
    elected = np.where(weighted.sum(axis=0) >= 0, 1.0, -1.0)
    agree = np.sign(weighted) == elected
    total = np.where(agree, weighted, 0).sum(axis=0)
    if normalize:
        column = np.asarray(weights, np.float64).reshape(-1, *[1] * base.ndim)
        below = np.where(agree, column, 0).sum(axis=0)
        total = total / np.where(below == 0, 1, below)
    return base + scale * total


def ties_answers(
    base: Array,
    experts: Sequence[Array],
    weights: Sequence[float],
    thresholds: Sequence[float],
    **how: float | bool,
) -> Iterator[Array]:
    """Every right answer: deltas of exactly the threshold's magnitude may be kept or dropped, expert by expert.

    In bfloat16 thousands of entries share the threshold's magnitude, and which of them make up the count is open.
    """
    deltas = [x - base for x in experts]
    for keep_equal in product((True, False), repeat=len(deltas)):
        kept = [
            np.where(np.abs(d) >= t if equal else np.abs(d) > t, d, 0)
            for d, t, equal in zip(deltas, thresholds, keep_equal, strict=True)
        ]
        yield ties(base, kept, weights, **how)  # type: ignore[arg-type]


def model_stock(base: Array, experts: Sequence[Array]) -> Array:
    """Jang et al. 2024, eqs. 6 and 7, with the mean cosine over pairs, one ratio per tensor."""
    deltas = np.stack([(x - base).ravel() for x in experts])
    k = len(deltas)
    gram = deltas @ deltas.T
    norms = np.sqrt(np.diag(gram))
    cosines = [gram[i, j] / (norms[i] * norms[j]) for i in range(k) for j in range(i + 1, k)]
    cosine = float(np.clip(np.mean(cosines), -1, 1))
    ratio = k * cosine / (1 + (k - 1) * cosine)
    return ratio * sum(experts) / k + (1 - ratio) * base


def karcher(models: Sequence[Array]) -> Array:
    """The Karcher mean on the unit sphere by gradient steps until they vanish, times the mean norm."""
    rows = np.stack([x.ravel() for x in models])
    norms = np.linalg.norm(rows, axis=1)
    units = rows / norms[:, None]
    mean = units.sum(axis=0)
    mean /= np.linalg.norm(mean)
    for _ in range(_STEPS):
        cosines = np.clip(units @ mean, -1, 1)
        # atan2 keeps small angles exact where arccos would lose half of the digits.
        aside = units - cosines[:, None] * mean
        lengths = np.linalg.norm(aside, axis=1)
        angles = np.arctan2(lengths, cosines)
        step = (np.where(lengths > 0, angles / np.where(lengths > 0, lengths, 1), 0)[:, None] * aside).mean(axis=0)
        size = np.linalg.norm(step)
        if size < 1e-14:
            break
        mean = np.cos(size) * mean + np.sin(size) * step / size
        mean /= np.linalg.norm(mean)
    return (norms.mean() * mean).reshape(models[0].shape)


def model_thresholds(read: Callable[[], Iterable[Array]], density: float) -> float:
    """`threshold` over all tensors of a model: `read` gives its deltas, float32, in pieces, each time from the start.

    An exact selection in two passes over histograms of the upper and lower halves of the magnitudes' bits.
    """
    upper = np.zeros(1 << 16, np.int64)
    for piece in read():
        upper += np.bincount(_bits(piece) >> 16, minlength=1 << 16)
    rank = max(1, int(density * int(upper.sum())))
    above = np.cumsum(upper[::-1])
    half = (1 << 16) - 1 - int(np.searchsorted(above, rank))
    rank -= int(upper[half + 1 :].sum())
    lower = np.zeros(1 << 16, np.int64)
    for piece in read():
        bits = _bits(piece)
        lower += np.bincount(bits[bits >> 16 == half] & 0xFFFF, minlength=1 << 16)
    rest = (1 << 16) - 1 - int(np.searchsorted(np.cumsum(lower[::-1]), rank))
    return float(np.uint32(half << 16 | rest).view(np.float32))


def _bits(piece: Array) -> Array:
    return np.abs(piece.astype(np.float32, copy=False)).ravel().view(np.uint32).astype(np.int64)


def to_bfloat16(values: Array) -> Array:
    """The nearest bfloat16 numbers, ties to even, as float64: one rounding, no detour over float32.

    Exact for normal numbers; checkpoints' weights are far above the subnormal range.
    """
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.rint(mantissa * 256), exponent - 8)
