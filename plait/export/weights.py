"""Which tensors a GGUF file has, made from a checkpoint's: names, element types, rows of heads, norms, experts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from plait.checkpoint import Checkpoint, FileReader, StoredTensor
from plait.checkpoint.gguf.families import FLOAT32, Family, stems
from plait.checkpoint.gguf.forms import interleaved
from plait.checkpoint.gguf.header import gguf_package
from plait.checkpoint.names import list_some
from plait.dtypes import DTYPES
from plait.errors import CheckpointError

__all__ = ["Tensor", "Values", "constant", "tensors_of"]

_EXPERT = re.compile(r"(.*\.experts\.)(\d+)(\..*)")
_BUFFERS = (".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")
_BAND = 1 << 18  # elements made at once
Raw = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Values:
    """Numbers that no tensor of the checkpoint holds: factors of rotary positions."""

    numbers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the file."""

    name: str
    kind: str
    """ggml's name of its type."""
    shape: tuple[int, ...]
    sources: tuple[StoredTensor, ...]
    """One, or all experts' in order."""
    heads: int = 0
    """Heads whose rows are to be interleaved."""
    plus: float = 0.0
    values: Values | None = None

    @property
    def columns(self) -> int:
        """Elements of a row."""
        return 1 if self.heads and len(self.shape) == 1 else self.shape[-1]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        block, size = _size(self.kind)
        return self.columns // block * size

    @property
    def nbytes(self) -> int:
        """Bytes of the whole."""
        return prod(self.shape) // self.columns * self.row_bytes

    @property
    def bands(self) -> list[tuple[int, int, int]]:
        """(source, first row, last row and one more) of the pieces that it is made in: whole heads, or about as many."""
        total = prod(self.shape) // self.columns // max(1, len(self.sources))
        step = total // self.heads if self.heads else max(1, _BAND // self.columns)
        starts = range(0, total, step)
        return [(i, low, min(low + step, total)) for i in range(max(1, len(self.sources))) for low in starts]

    def make(self, reader: FileReader, source: int, low: int, high: int) -> Raw:
        """Return the bytes of rows of one source.

        Raises:
            CheckpointError: a number is not finite, or too large for the type.
        """
        from plait.ops.codec import decode, encode

        if self.values is not None:
            return np.array(self.values.numbers, np.float32).view(np.uint8)
        stored = self.sources[source]
        count = (high - low) * self.columns
        raw = np.empty(count * DTYPES[stored.dtype].size, np.uint8)
        reader.read_elements(stored, low * self.columns, raw)
        floats = np.empty((high - low, self.columns), np.float32)
        finite = decode(raw, stored.dtype, floats.reshape(-1))
        if self.heads:
            floats = np.ascontiguousarray(floats[interleaved(high - low)])
        if self.plus:
            floats += np.float32(self.plus)
        if self.kind == "Q8_0":
            gguf = gguf_package()
            made: Raw = gguf.quants.quantize(floats, gguf.GGMLQuantizationType.Q8_0).reshape(-1)
        else:
            made = np.empty(count * DTYPES[self.kind].size, np.uint8)
            finite = encode(floats.reshape(-1), self.kind, made) and finite
        if not finite:
            raise CheckpointError(f"{stored.name}: not finite, or too large for {self.kind}. Try bf16 or f32.")
        return made


def _size(kind: str) -> tuple[int, int]:
    gguf = gguf_package()
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    return block, size


def constant(name: str, numbers: Sequence[float]) -> Tensor:
    """Make a tensor of given float32 numbers."""
    return Tensor(name, "F32", (len(numbers),), (), values=Values(tuple(numbers)))


def tensors_of(checkpoint: Checkpoint, family: Family, config: Mapping[str, Any], kind: str) -> tuple[Tensor, ...]:
    """Lay out all tensors of the file, in the checkpoint's order.

    Norms, biases and routers are float32, as llama.cpp has them; rows that are no whole blocks of `kind` are F16.

    Raises:
        CheckpointError: the checkpoint has tensors that llama.cpp has no place for; they are named.
    """
    names = {name: stem for stem, name in stems(family, int(config["num_hidden_layers"])).items()}
    found: dict[str, Tensor] = {}
    experts: dict[str, dict[int, StoredTensor]] = {}
    unknown = []
    for name, tensor in checkpoint.tensors.items():
        if name.endswith(_BUFFERS) or name in checkpoint.aliases or _is_tied(name, config):
            continue
        expert = _EXPERT.fullmatch(name)
        key = f"{expert[1]}{{}}{expert[3]}" if expert else name
        stem, _, part = key.rpartition(".")
        if stem not in names or part not in {"weight", "bias"} or not DTYPES[tensor.dtype].is_float:
            unknown.append(name)
            continue
        own = f"{names[stem]}.{part}"
        if expert:
            experts.setdefault(own, {})[int(expert[2])] = tensor
            found.setdefault(own, Tensor(own, "", (), ()))
        else:
            found[own] = _one(tensor, own, family, config, kind)
    if unknown:
        raise CheckpointError(
            f"{checkpoint.reference}: llama.cpp's {family.architecture} has no place for {list_some(unknown)}."
        )
    for own, parts in experts.items():
        found[own] = _joined(own, parts, kind)
    return tuple(found.values())


def _is_tied(name: str, config: Mapping[str, Any]) -> bool:
    return name == "lm_head.weight" and bool(config.get("tie_word_embeddings"))


def _one(tensor: StoredTensor, own: str, family: Family, config: Mapping[str, Any], kind: str) -> Tensor:
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    part = tensor.name.split(".")[-2]
    turned = int(config[heads[part]]) if family.permuted and part in heads else 0
    plus = 1.0 if family.shifted and tensor.name.endswith("norm.weight") else 0.0
    whole = len(tensor.shape) == 1 or own.split(".")[-2] in FLOAT32 or own.endswith("_norm.weight")
    return Tensor(own, "F32" if whole else _fitting(kind, tensor.shape), tensor.shape, (tensor,), turned, plus)


def _fitting(kind: str, shape: tuple[int, ...]) -> str:
    block, _ = _size(kind)
    return kind if shape[-1] % block == 0 else "F16"


def _joined(own: str, parts: Mapping[int, StoredTensor], kind: str) -> Tensor:
    first = parts[min(parts)]
    wanted = range(len(parts))
    odd = [tensor.name for tensor in parts.values() if tensor.shape != first.shape]
    if odd or sorted(parts) != list(wanted):
        raise CheckpointError(f"{first.name}: experts are not numbered through, or differ in shape: {list_some(odd)}.")
    shape = (len(parts), *first.shape)
    return Tensor(own, _fitting(kind, shape), shape, tuple(parts[i] for i in wanted))
