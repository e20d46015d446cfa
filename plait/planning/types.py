"""A plan: everything that a merge will do, as plain frozen data, fixed before any weight byte is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal

from plait.checkpoint.types import StoredTensor
from plait.dtypes import DTYPES
from plait.errors import Fault
from plait.recipe.types import PostStep, Recipe

__all__ = ["Dropped", "Explained", "File", "Model", "Placed", "Plan", "Source", "Step"]


@dataclass(frozen=True, slots=True)
class Model:
    """One model that is read: as the recipe names it, where it lies, and what it is there for."""

    reference: str
    path: Path
    config: Mapping[str, Any] | None = field(repr=False)
    notes: tuple[str, ...] = ()
    stage: str | None = None
    """The stage's name, for a model that an earlier document of the recipe makes."""
    local: bool = False
    """Whether the reference is a path on this machine, which means nothing elsewhere."""
    adapters: tuple[Path, ...] = ()
    """Folders of the adapters on it; `path` is then their base's."""
    named: tuple[tuple[str, Path | None], ...] = ()
    """For `base+adapter`: the two as the recipe names them, and where they lie on this machine, or None."""

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where it is read from; nowhere for a stage."""
        return () if self.stage else (self.path, *self.adapters)

    @property
    def pieces(self) -> tuple[tuple[str, Path | None], ...]:
        """All that the reference names, and where it lies if it is a path on this machine."""
        where = self.adapters[-1] if self.adapters else self.path
        return self.named or ((self.reference, where if self.local else None),)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One input of a step: a tensor in a file, or another stage's step, made tile by tile when it is asked for."""

    model: int
    """Index into `Plan.models`."""
    tensor: StoredTensor | None = None
    step: Step | None = None

    @property
    def name(self) -> str:
        """The tensor's name where it is stored."""
        return self.tensor.name if self.tensor else self.made.name

    @property
    def made(self) -> Step:
        """The step that makes it; only for an input that is not stored."""
        if self.step is None:
            raise AssertionError("a source is a tensor or a step")
        return self.step

    @property
    def dtype(self) -> str:
        """Element type code."""
        return self.tensor.dtype if self.tensor else self.made.dtype

    @property
    def native(self) -> str:
        """Element type code in which the output keeps it, where none is asked for."""
        return (self.tensor.native if self.tensor else None) or self.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape."""
        return self.tensor.shape if self.tensor else self.made.shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that reading it once reads; of another stage's step the bytes that it makes."""
        held = self.tensor.held if self.tensor else (self.made,)
        return sum(part.nbytes for part in held)


@dataclass(frozen=True, slots=True)
class Explained:
    """Why one parameter has its value for one tensor."""

    parameter: str
    model: str | None
    value: Any
    rule: str
    """Such as "recipe.yml:7, models[0].parameters: gradient [0, 1] at t=0.25", or "default"."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """How one output tensor is made. Steps do not depend on each other, so they may run in any order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    action: Literal["merge", "copy"]
    sources: tuple[Source, ...]
    """What the method sees, in recipe order; for a copy the tensor copied first, then those it must equal."""
    base: Source | None = None
    method: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Effective values: a scalar, or a tuple with one number for each source."""
    post: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    reason: str = ""
    """Why it is copied."""
    explained: tuple[Explained, ...] = ()
    stage: str = ""
    """The document that it belongs to: its `name`, or ""."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes written."""
        return self.size * DTYPES[self.dtype].size

    @property
    def inputs(self) -> tuple[Source, ...]:
        """All that is read: the sources, and the base when it is not one of them."""
        return self.sources if self.base is None or self.base in self.sources else (*self.sources, self.base)


@dataclass(frozen=True, slots=True)
class Dropped:
    """An input tensor that does not reach the output, and why."""

    model: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Placed:
    """A step and where its bytes go: file (index into `Plan.files`) and offset from the file's start."""

    step: Step
    file: int
    offset: int


@dataclass(frozen=True, slots=True)
class File:
    """One output file of weights: its name, its full size and its header's bytes (length word included)."""

    name: str
    size: int
    header: bytes = field(repr=False)


@dataclass(frozen=True)
class Plan:
    """The whole merge. `plait.merge` adds nothing that this does not show."""

    recipe: Recipe
    stages: tuple[Recipe, ...]
    models: tuple[Model, ...]
    placed: tuple[Placed, ...]
    files: tuple[File, ...]
    donor: int
    """Index of the model that config, tokenizer and side files come from."""
    config: Mapping[str, Any] | None
    side_files: Mapping[str, Path]
    seed: int
    tied: Mapping[str, str] = field(default_factory=dict)
    """Names that are not written because the output's config ties them to another."""
    twins: tuple[tuple[Source, Source], ...] = ()
    """Heads that are dropped because their config ties them, with the embeddings that they must then equal."""
    dropped: tuple[Dropped, ...] = ()
    warnings: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()
    stage_steps: tuple[Step, ...] = ()
    """Steps of earlier stages that some step reads."""
    expected_hashes: Mapping[str, str] = field(default_factory=dict)
    """From a lock: what every input tensor must hash to."""
    commits: Mapping[str, str] = field(default_factory=dict)
    """Which commit each hub name (`org/name@revision`, as written) stands for."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Side files that are not copied but written, by name: a chat template that the recipe gives."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps in the order in which they lie in the files."""
        return tuple(placed.step for placed in self.placed)

    @property
    def bytes_written(self) -> int:
        """Bytes of all output files."""
        return sum(file.size for file in self.files)

    @property
    def post(self) -> tuple[PostStep, ...]:
        """The recipe's post-steps."""
        return self.recipe.post
