"""Model kinship: how alike the changes are that fine-tuning made. Hu et al. 2024, https://arxiv.org/abs/2410.12613."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from plait import ops
from plait.checkpoint.io import FileReader
from plait.engine.device import Cpu
from plait.engine.hashes import CHUNK
from plait.engine.threads import run_on_threads
from plait.engine.tiles import Tiler, blamed
from plait.errors import ArgumentError
from plait.methods.measures import Gram
from plait.methods.measures.measure import ExactSums, host
from plait.planning.types import Plan, Step

__all__ = ["MEASURES", "Kinship", "greedy_order", "kinship_of"]

MEASURES = ("pearson", "cosine", "euclidean")
Matrix = npt.NDArray[np.float64]
Span = tuple[Step, int, int]


@dataclass(frozen=True)
class Kinship:
    """How alike the models' differences from the base are, over the whole model."""

    models: tuple[str, ...]
    measure: str
    matrix: Matrix
    """`[k, k]`: correlations or cosines, in [-1, 1] with 1 for a model and itself; or distances, 0 for itself."""
    order: tuple[int, ...]
    """See `greedy_order`: indices into `models`."""
    compared: int
    """Numbers in each model that were compared."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Tensors that were not, and why: those that only some models have, and those that are not floats."""


@dataclass
class _Moments(Gram):
    """The Gram matrix, and the sum of each model's entries: `[k, k + 1]`, the sums last."""

    entries: ExactSums = field(default_factory=ExactSums)

    def fork(self) -> _Moments:
        return _Moments(self.k)

    def update(self, stack: Any, start: int, rng: Any) -> None:
        super().update(stack, start, rng)
        self.entries.add(host(ops.sum_blocks(stack, start)).copy())

    def update_grid(self, grid: Any, code: str, start: int, rng: Any, *, has_base: bool) -> None:
        """Ask for tiles."""

    def join(self, other: Any) -> None:
        super().join(other)
        self.entries.join(other.entries)

    def result(self) -> Matrix:
        return np.column_stack([super().result(), self.entries.totals(self.k)])


def kinship_of(plan: Plan, measure: str, threads: int) -> Kinship:
    """Compare the models of a plan that merges their deltas, in one pass over all of them, tile by tile.

    A delta without length (for `pearson`: all of whose entries are equal) has kinship 0 with every other.

    Raises:
        ArgumentError: there are fewer than two models, the measure is none of `MEASURES`, or nothing can be compared.
        MergeError: an input has NaN or infinity.
    """
    if measure not in MEASURES:
        raise ArgumentError(f"There is no measure {measure!r} of kinship; expected one of {', '.join(MEASURES)}.")
    steps = [step for step in plan.steps if step.action == "merge" and step.base is not None]
    size = sum(step.size for step in steps)
    if not size:
        raise ArgumentError("The models have no tensor of numbers in common with the base, so nothing can be compared.")
    models = tuple(plan.models[source.model].reference for source in steps[0].sources)
    if len(models) < 2:
        raise ArgumentError(f"Kinship is between models: give two or more besides the base, not {len(models)}.")
    seen = _summed(plan, steps, _Moments(len(models)) if measure == "pearson" else Gram(len(models)), threads)
    matrix = _distances(seen) if measure == "euclidean" else _cosines(seen, size)
    order = greedy_order(-matrix if measure == "euclidean" else matrix)
    left_out = {step.name: step.reason for step in plan.steps if step.action == "copy"}
    return Kinship(models, measure, matrix, order, size, left_out)


def greedy_order(alike: Matrix) -> tuple[int, ...]:
    """Order models so that each adds most that is new: `[k, k]`, larger for more alike, to indices.

    The pair that is least alike comes first; then, again and again, the model whose nearest kin among the chosen is
    the most distant. Of equals the one listed first. The paper's finding is that merging gains more the less alike the
    models are, so a soup that is grown in this order meets the larger gains first.

    >>> greedy_order(np.array([[1.0, 0.9, 0.1], [0.9, 1.0, 0.3], [0.1, 0.3, 1.0]]))
    (0, 2, 1)
    """
    count = len(alike)
    pairs = [(float(alike[i, j]), i, j) for i in range(count) for j in range(i + 1, count)]
    chosen = list(min(pairs)[1:]) if pairs else list(range(count))
    while len(chosen) < count:
        left = [i for i in range(count) if i not in chosen]
        chosen.append(min(left, key=lambda i: float(alike[i, chosen].max())))
    return tuple(chosen)


def _summed(plan: Plan, steps: Sequence[Step], measure: Gram, threads: int) -> Matrix:
    """Show the measure every tile of every step."""
    stop = threading.Event()
    spans = [(step, low, min(low + CHUNK, step.size)) for step in steps for low in range(0, step.size, CHUNK)]
    forks: list[Gram] = []
    with FileReader() as reader:

        def start() -> Callable[[Span], None]:
            tiler, fork = Tiler(plan, reader, Cpu(), {}, stop=stop), measure.fork()
            forks.append(fork)

            def see(span: Span) -> None:
                with blamed(span[0]):
                    tiler.measure(fork, *span, None)

            return see

        run_on_threads(spans, start, threads, stop)
    for fork in forks:
        measure.join(fork)
    return np.asarray(measure.result())


def _cosines(seen: Matrix, size: int) -> Matrix:
    """The cosines of a Gram matrix `[k, k]`; the correlations of `[k, k + 1]`, whose last column has the sums."""
    products, floor = seen[:, : len(seen)], np.zeros(len(seen))
    if seen.shape[1] > len(seen):
        sums = seen[:, -1]
        floor = 1e-14 * np.diag(products)  # what rounding may leave of a delta that is the same everywhere
        products = products - np.outer(sums, sums) / size
    squares = np.diag(products)
    lengths = np.sqrt(np.where(squares > floor, squares, 0.0))
    scale = np.outer(lengths, lengths)
    cosines = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0).clip(-1, 1)
    np.fill_diagonal(cosines, 1.0)
    return np.asarray(cosines)


def _distances(gram: Matrix) -> Matrix:
    squares = np.diag(gram)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * gram, 0.0))
    np.fill_diagonal(apart, 0.0)
    return np.asarray(apart)
