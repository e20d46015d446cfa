"""What a recipe is once read: frozen data, every part of it with its line in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from plait.errors import Fault, Where

__all__ = [
    "COMPONENTS",
    "AdapterSpec",
    "Column",
    "ExpertsSpec",
    "Filtered",
    "Input",
    "ModelRef",
    "ModelToken",
    "Module",
    "PerLayer",
    "PostStep",
    "Recipe",
    "Scalar",
    "Setting",
    "Settings",
    "Slice",
    "TensorRule",
    "TokenRule",
    "TokenizerSpec",
]

Scalar = bool | int | float | str

COMPONENTS = ("attention", "mlp", "embeddings", "norms", "head", "other")
"""What a tensor may be for, in the words of `component`; "other" is what its name and shape do not tell."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model as a recipe names it: `path[@revision][+adapter[@revision]]`. `str()` gives that text again.

    Two references are the same model when their text is the same; `where` does not count.
    """

    path: str
    revision: str | None = None
    adapter: str | None = None
    adapter_revision: str | None = None
    where: Where | None = field(default=None, compare=False)

    def __str__(self) -> str:
        text = self.path + (f"@{self.revision}" if self.revision else "")
        if self.adapter:
            text += f"+{self.adapter}" + (f"@{self.adapter_revision}" if self.adapter_revision else "")
        return text


@dataclass(frozen=True, slots=True)
class Column:
    """One number a layer, the first layer first, and where each is written. `model` None: for all models."""

    model: str | None
    numbers: tuple[float, ...]
    places: tuple[Where, ...] = field(compare=False)


@dataclass(frozen=True, slots=True)
class PerLayer:
    """A value written as `{layers: ...}` or `{file: ...}` (plait's own): one column for all models, or one for each."""

    columns: tuple[Column, ...]
    file: str = field(default="", compare=False)
    """The file, "" for numbers in the recipe itself."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """One entry of a `{filter, value}` list. `filter` None or "*" matches every tensor.

    With a `component` (plait's own) the tensor must be of it as well.
    """

    filter: str | None
    value: Scalar | tuple[Scalar, ...] | PerLayer
    where: Where
    component: str | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of one parameter at one level: a scalar, a gradient, numbers a layer, or a list of filtered values."""

    value: Scalar | tuple[Scalar, ...] | PerLayer | tuple[Filtered, ...]
    where: Where


Settings = Mapping[str, Setting]


@dataclass(frozen=True, slots=True)
class Input:
    """A model in `models`, or a source in a slice; `layer_range` is half open and None means all layers."""

    model: ModelRef
    where: Where
    layer_range: tuple[int, int] | None = None
    parameters: Settings = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Slice:
    """One run of output layers, and the inputs that make it."""

    sources: tuple[Input, ...]
    where: Where
    base_model: ModelRef | None = None
    parameters: Settings = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Module:
    """One part of the output (`modules:`); a document with `models` or `slices` has one, named ""."""

    name: str
    where: Where
    slices: tuple[Slice, ...]
    whole: bool
    """True when written with `models:`: a single slice over every layer, `layer_range` None."""
    parameters: Settings = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TensorRule:
    """An entry of `tensors:` (plait's own): for the output tensors that all of its selectors take in.

    Selectors, at least one: the glob `match`, of the whole name; the regular expression `regex`, found anywhere in
    it; the `component`. Then exactly one of: another `merge_method` and/or `parameters`; `copy_from` a model; `drop`.
    """

    match: str | None
    where: Where
    merge_method: str | None = None
    parameters: Settings = field(default_factory=dict)
    copy_from: ModelRef | None = None
    drop: bool = False
    regex: str | None = None
    component: str | None = None


@dataclass(frozen=True, slots=True)
class PostStep:
    """An entry of `post:` (plait's own): a step applied to what the method returned, in order."""

    name: str
    where: Where
    parameters: Settings = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelToken:
    """One row of a model's vocabulary: exactly one of `token` and `token_id` is given."""

    model: ModelRef
    token: str | None = None
    token_id: int | None = None


@dataclass(frozen=True, slots=True)
class TokenRule:
    """An entry of `tokenizer.tokens`: where a token's row comes from.

    `source` is a model (its row for this token), one row of a model, "zero" (a row of zeros), or None (plait's
    choice). `force`: also for the models that have a row of their own.
    """

    where: Where
    source: ModelRef | ModelToken | Literal["zero"] | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """`tokenizer_source` or `tokenizer:`; `source` is "union", "base" or a model."""

    source: str | ModelRef
    where: Where
    tokens: Mapping[str, TokenRule] = field(default_factory=dict)
    pad_to_multiple_of: int | None = None


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """`adapter:` (plait's own): adapters are merged into an adapter. Exactly one of the first five is given."""

    where: Where
    rank: int | None = None
    """The most singular values kept of each module's merged change."""
    energy: float | None = None
    """The least share of their sum of squares, in (0, 1)."""
    error: float | None = None
    """The most relative error, in (0, 1)."""
    exact: bool = False
    """Nothing is left out; sums of adapters are the adapters' factors side by side."""
    clusters: int | None = None
    """The rank that the adapters' units are grouped into (LoRA-LEGO)."""
    base_name: str | None = None
    """What the output calls its base."""


@dataclass(frozen=True, slots=True)
class ExpertsSpec:
    """`experts:` (plait's own): experts are put in the order of the base's that they are most like, by `match`."""

    where: Where
    match: Literal["weights", "router"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One document of a recipe file. `name` is its name as a stage (mergekit-multi), or None."""

    file: str
    where: Where
    merge_method: str
    merge_method_where: Where
    modules: tuple[Module, ...]
    name: str | None = None
    base_model: ModelRef | None = None
    parameters: Settings = field(default_factory=dict)
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer: TokenizerSpec | None = None
    chat_template: str | None = None
    tensors: tuple[TensorRule, ...] = ()
    post: tuple[PostStep, ...] = ()
    seed: int | None = None
    strict: bool = False
    experts: ExpertsSpec | None = None
    adapter: AdapterSpec | None = None
    text: str = field(default="", compare=False, repr=False)
    """The whole file, for the output's copy of the recipe and the lock; numbers of `{file: ...}` written out."""
    warnings: tuple[Fault, ...] = field(default=(), compare=False)
    """What is odd about the document, but no fault."""
