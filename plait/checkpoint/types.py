"""What a checkpoint is to plait: names, element types, shapes and where the bytes lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from plait.dtypes import DTYPES

if TYPE_CHECKING:
    from plait.checkpoint.io import FileReader

__all__ = ["Checkpoint", "Derived", "StoredTensor"]


class Derived(Protocol):
    """How the elements of a tensor that no file holds as such are made from tensors that files do hold.

    Frozen and hashable, as what it is part of is.
    """

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """All that is read to make the tensor."""
        ...

    def read(self, reader: FileReader, start: int, out: npt.NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes, in the tensor's own element type, of its elements from `start` on.

        Any thread may call it.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor as it lies in a file: little-endian, its first element `offset` bytes from the file's start."""

    name: str
    dtype: str
    """A code of `plait.dtypes.DTYPES`."""
    shape: tuple[int, ...]
    file: str
    """Absolute path, links resolved no further than the folder (hub caches are links)."""
    offset: int
    strides: tuple[int, ...] | None = None
    """Elements from one index to the next along each axis, for a tensor that is not stored row by row (as pickles may
    hold it, transposed); None for row by row. `nbytes` and hashes are of the tensor row by row all the same."""
    derived: Derived | None = None
    """How it is made, for a tensor that is not stored as such; `file` and `offset` are then those of its chief part."""
    native: str | None = None
    """The element type in which the output keeps it where none is asked for, as a code; None for `dtype`. What is made
    in float32 from a tensor of bfloat16 is written as bfloat16."""

    @property
    def size(self) -> int:
        """Number of elements; 1 for a scalar."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.size * DTYPES[self.dtype].size

    @property
    def held(self) -> tuple[StoredTensor, ...]:
        """What files hold of it: itself, or all that it is made from."""
        if self.derived is None:
            return (self,)
        return tuple(held for part in self.derived.parts for held in part.held)

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other tensor: its file, or all files that it is made from, and its name."""
        # Two tensors may be made from the same parts: a tied head's rows and its embedding's, say.
        mark = getattr(self.derived, "mark", "")
        # Of many parts, such as all experts of a layer, the files are worked out once.
        files = getattr(self.derived, "files", "") or "\n".join(dict.fromkeys(part.file for part in self.held))
        return files, f"{self.name}\n{mark}" if mark else self.name

    @property
    def reach(self) -> int:
        """Bytes in the file from the first element to the last."""
        if self.strides is None or self.size == 0:
            return self.nbytes
        last = sum((length - 1) * step for length, step in zip(self.shape, self.strides, strict=True))
        return (last + 1) * DTYPES[self.dtype].size


@dataclass(frozen=True)
class Checkpoint:
    """The headers of a checkpoint. Holds no weights and no open files."""

    path: Path
    """The folder, or the single file."""
    reference: str
    """What the user wrote."""
    tensors: Mapping[str, StoredTensor]
    """By name, in natural order (layer 2 before layer 10)."""
    config: Mapping[str, Any] | None = None
    """config.json, or None where there is none."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Tensors known from the headers alone to be another's bytes (name -> name kept), as in a `.bin` that
    pickles one storage under two names. Both names are in `tensors`."""
    notes: tuple[str, ...] = ()
    """Quirks that a reader should know: files ignored, missing model_type, and so on. One sentence each."""
    renames: Mapping[str, str] = field(default_factory=dict)
    """For a view: name here -> name in the files. Empty for a checkpoint as stored."""
    adapters: tuple[Path, ...] = ()
    """Folders of the adapters that it is seen with; `path` is the base's."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Tensors of the files that are not among `tensors`, and why."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Small files that are not there but can be made: name -> content, as a tokenizer.json that a GGUF file implies."""

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors; those that are another's bytes count once."""
        return sum(t.nbytes for name, t in self.tensors.items() if name not in self.aliases)
