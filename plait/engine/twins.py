"""Heads that a config ties to the embeddings although the files have them: they must be the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from plait.checkpoint.io import FileReader
from plait.dtypes import DTYPES
from plait.errors import MergeError
from plait.ops.codec import decode
from plait.planning.types import Plan, Source

__all__ = ["check_twins"]

_AT_ONCE = 1 << 20  # elements


def check_twins(plan: Plan, reader: FileReader) -> None:
    """Compare every dropped head with the embeddings that stand for it.

    Raises:
        MergeError: they differ, so that the model's config or its file is wrong; no one can tell which.
    """
    for head, kept in plan.twins:
        if not _same(reader, head, kept):
            model = plan.models[head.model].reference
            raise MergeError(
                f"{head.name} of {model} is not its {kept.name}, though its config.json ties the two. Write "
                '"tie_word_embeddings": false there to keep the head, or take the tensor out of the file.'
            )


def _same(reader: FileReader, one: Source, other: Source) -> bool:
    spans = ((start, min(one.size, start + _AT_ONCE)) for start in range(0, one.size, _AT_ONCE))
    return one.shape == other.shape and all(
        np.array_equal(_read(reader, one, *span), _read(reader, other, *span)) for span in spans
    )


def _read(reader: FileReader, source: Source, start: int, stop: int) -> npt.NDArray[np.float32]:
    if source.tensor is None:
        raise AssertionError("what another document makes is never stored twice")
    raw = np.empty((stop - start) * DTYPES[source.dtype].size, np.uint8)
    reader.read_elements(source.tensor, start, raw)
    values = np.empty(stop - start, np.float32)
    decode(raw, source.dtype, values)
    return values
