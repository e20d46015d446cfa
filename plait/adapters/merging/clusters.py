"""Rank-wise clustering: LoRA-LEGO, Zhao et al. 2024, https://arxiv.org/abs/2409.16167.

A unit is one row of A with its column of B, all that one rank does. The units of all adapters are grouped by k-means, and
the mean of each group is a unit of the result, reweighted twice: to the mean of its members' sizes, for means are
smaller than what they are means of; and all by the root of (rank of the adapters) / (number of groups), which keeps
the variance of what comes out. Here scaling goes into A and B alike, by its root; size is the largest magnitude, as in two
public implementations; adapters of several ranks count with the mean of their ranks; and weights, which the paper
does not have, are those of the means.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import numpy as np
import numpy.typing as npt

from plait.adapters.merging.factors import Made
from plait.adapters.merging.modules import Joined
from plait.adapters.merging.space import Matrix, factors_of
from plait.checkpoint import FileReader
from plait.errors import MergeError

__all__ = ["cluster", "clustered", "grouped"]

_STARTS = 10
_ROUNDS = 300
Labels = npt.NDArray[np.intp]


def clustered(
    reader: FileReader, joined: Joined, shares: Mapping[int, float], count: int, rng: np.random.Generator
) -> Made:
    """Group the units of a module's adapters into `count`, or as many as there are; its error is that of the exact mean.

    Raises:
        MergeError: an adapter counts less than nothing.
    """
    units, weights, ranks, exact = [], [], [], []
    for part in joined.parts:
        share = shares.get(part.model, 0.0)
        if share < 0:
            raise MergeError(f"{joined.name}: clusters are means, and no adapter can have a negative weight in a mean.")
        up, down = factors_of(reader, part)
        if share and part.scaling:
            root = sqrt(abs(part.scaling))
            units.append(np.concatenate([root * down, np.sign(part.scaling) * root * up.T], axis=1))
            weights += [share] * part.rank
            ranks.append(part.rank)
            exact.append(np.full(part.rank, share))
    wide = joined.parts[0].down.size // joined.parts[0].rank
    if not units:
        return Made(np.empty((joined.outputs, 0)), np.empty((0, wide)), 0.0)
    stacked, counts = np.concatenate(units), np.array(weights)
    made = grouped(stacked, counts, min(count, len(stacked)), sum(ranks) / len(ranks), rng)
    down, up = made[:, :wide], made[:, wide:].T
    shares_of = np.concatenate(exact)[:, None]
    return Made(up, down, _distance((up, down), (stacked[:, wide:].T, shares_of * stacked[:, :wide])))


def _distance(one: tuple[Matrix, Matrix], other: tuple[Matrix, Matrix]) -> float:
    """Relative distance of a product of factors from another, of Frobenius norms, without making either."""

    def inner(a: tuple[Matrix, Matrix], b: tuple[Matrix, Matrix]) -> float:
        return float(np.sum((a[0].T @ b[0]) * (a[1] @ b[1].T)))

    whole = inner(other, other)
    apart = inner(one, one) - 2 * inner(one, other) + whole
    return sqrt(max(apart, 0.0) / whole) if whole > 0 else 0.0


def grouped(units: Matrix, weights: Matrix, count: int, rank: float, rng: np.random.Generator) -> Matrix:
    """Return the reweighted mean of each group of units, `[count, size]`.

    >>> units = np.array([[2.0, 0.0], [0.0, 2.0], [-4.0, 4.0]])
    >>> grouped(units, np.ones(3), 3, 3.0, np.random.default_rng(0)).tolist()
    [[2.0, 0.0], [0.0, 2.0], [-4.0, 4.0]]
    """
    labels = cluster(units, weights, count, rng)
    means = []
    for group in dict.fromkeys(labels.tolist()):
        members, own = units[labels == group], weights[labels == group]
        mean = own @ members / own.sum()
        size, sizes = np.abs(mean).max(), np.abs(members).max(axis=1)
        means.append(mean * (own @ sizes / own.sum() / size) if size else mean)
    return np.stack(means) * sqrt(rank / len(means))


def cluster(units: Matrix, weights: Matrix, count: int, rng: np.random.Generator) -> Labels:
    """Group by weighted k-means: Lloyd's rounds from ten starts by k-means++; the best of them.

    Distances come from the units' Gram matrix, so that the work does not grow with their length.
    """
    gram = units @ units.T
    if count >= len(units):
        return np.arange(len(units))
    best: tuple[float, Labels] | None = None
    for _ in range(_STARTS):
        labels = _first(gram, weights, count, rng)
        for _ in range(_ROUNDS):
            apart = _distances(gram, weights, labels, count)
            moved = _without_gaps(np.argmin(apart, axis=1), apart, count)
            if np.array_equal(moved, labels):
                break
            labels = moved
        cost = float(weights @ _distances(gram, weights, labels, count)[np.arange(len(units)), labels])
        if best is None or cost < best[0] * (1 - 1e-12):
            best = cost, labels
    if best is None:
        raise AssertionError("there is at least one start")
    return best[1]


def _first(gram: Matrix, weights: Matrix, count: int, rng: np.random.Generator) -> Labels:
    """Choose units far from each other (Arthur and Vassilvitskii 2007), and give each unit to the nearest."""
    squares = np.diag(gram)
    chosen = [int(rng.choice(len(gram), p=weights / weights.sum()))]
    while len(chosen) < count:
        apart = np.maximum(squares[:, None] - 2 * gram[:, chosen] + squares[chosen], 0).min(axis=1)
        apart[chosen] = 0
        odds = apart * weights
        free = np.setdiff1d(np.arange(len(gram)), chosen)
        chosen.append(int(rng.choice(len(gram), p=odds / odds.sum())) if odds.sum() > 0 else int(free[0]))
    apart = squares[:, None] - 2 * gram[:, chosen] + squares[chosen]
    apart[chosen, np.arange(count)] = -np.inf  # (where units are alike, each group still has one)
    return np.asarray(np.argmin(apart, axis=1))


def _distances(gram: Matrix, weights: Matrix, labels: Labels, count: int) -> Matrix:
    """Squared distances of all units from all means, `[units, count]`."""
    member = (labels[:, None] == np.arange(count)) * weights[:, None]
    member = member / np.maximum(member.sum(axis=0), 1e-300)
    across = gram @ member
    return np.asarray(np.diag(gram)[:, None] - 2 * across + np.sum(member * across, axis=0))


def _without_gaps(labels: Labels, apart: Matrix, count: int) -> Labels:
    """Give a group that lost all its units the one that is farthest from its own mean."""
    labels = labels.copy()
    for group in range(count):
        if not np.any(labels == group):
            own = apart[np.arange(len(labels)), labels].copy()
            own[np.bincount(labels, minlength=count)[labels] == 1] = -np.inf
            labels[int(np.argmax(own))] = group
    return labels
