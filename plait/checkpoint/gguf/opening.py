"""A GGUF file opened as the checkpoint that it was made from: its tensors by transformers' names, its config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from plait.checkpoint.config import config_notes, read_config
from plait.checkpoint.dequantise.bands import Dequantised, numbers
from plait.checkpoint.dequantise.settings import plain_config, settings_of
from plait.checkpoint.gguf.config import config_of
from plait.checkpoint.gguf.families import FAMILIES, FLOAT32, Family, family_of_architecture, stems
from plait.checkpoint.gguf.files import read_headers
from plait.checkpoint.gguf.forms import Rows
from plait.checkpoint.gguf.header import Header, Packed, gguf_package
from plait.checkpoint.gguf.rope import ROPE_TENSORS
from plait.checkpoint.gguf.tokenizer import tokenizer_files
from plait.checkpoint.io import FileReader
from plait.checkpoint.names import in_natural_order, list_some
from plait.checkpoint.side_files import side_files
from plait.checkpoint.types import Checkpoint, StoredTensor
from plait.checkpoint.vocabulary import VOCABULARY_FILES, unreadable
from plait.dtypes import DTYPES
from plait.errors import CheckpointError
from plait.structure.configs import stated

__all__ = ["open_gguf"]

_PLAIN = frozenset({"F32", "F16", "BF16", "F64"})
_TELLING = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size")


def open_gguf(file: Path, path: Path, written: str) -> Checkpoint:
    """Open `file`, or the model that it is the first part of; `path` and `written` are what the user named.

    Quantised weights are made in float32 when they are read, and written as bfloat16 unless the recipe asks for another
    type. config.json is the one beside the file if it is this model's, else made from the metadata; so is the tokenizer.

    Raises:
        CheckpointError: no GGUF file, a family or tensor that is not known, a type that cannot be dequantised.
    """
    header = read_headers(file)
    family = _family(header)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    if "token_embd.weight" not in tensors:
        raise CheckpointError(f"{file}: it has no token_embd.weight; a whole language model was expected.")
    beside = plain_config(read_config(str(file.parent)))
    main = _main_type(header.tensors, settings_of(beside).dtype)
    with FileReader() as reader:
        config = config_of(header, family, tensors, DTYPES[main].name, lambda packed: numbers(reader, _raw(packed)))
    differs = "" if beside is None else _difference(beside, config)
    view = _View(header, family, config, main)
    view.add_all()
    notes = [view.summary()]
    if beside is None:
        notes.append("GGUF: config.json is made from the metadata.")
    elif differs:
        notes.append(
            f"GGUF: config.json beside the file is another model's ({differs}); one is made from the metadata."
        )
    used = beside if beside is not None and not differs else config
    opened = Checkpoint(
        path=path,
        reference=written,
        tensors=in_natural_order(view.made),
        config=used,
        notes=(*notes, *config_notes(dict(used))),
        left_out=dict.fromkeys((name for name in ROPE_TENSORS if name in tensors), "in config.json, as rope scaling"),
    )
    return _with_tokenizer(opened, header)


def _with_tokenizer(opened: Checkpoint, header: Header) -> Checkpoint:
    """Add the tokenizer that the metadata tells, unless one lies beside the file."""
    files = side_files(opened)
    if any(name in files for name in (*VOCABULARY_FILES, *unreadable(files))):
        return replace(opened, notes=(*opened.notes, "GGUF: the tokenizer is the one beside the file."))
    texts, told = tokenizer_files(header)
    texts = {name: text for name, text in texts.items() if name not in files}
    return replace(opened, texts=texts, notes=(*opened.notes, f"GGUF: {told}"))


def _family(header: Header) -> Family:
    name = header.values.get("general.architecture")
    family = family_of_architecture(str(name), experts=bool(header.number(f"{name}.expert_count", 0)))
    if family is None:
        known = ", ".join(dict.fromkeys(one.architecture for one in FAMILIES))
        raise CheckpointError(
            f"{header.file}: a GGUF file of architecture {name!r}; plait reads {known}. "
            "Name the checkpoint that it was made from."
        )
    return family


def _main_type(tensors: tuple[Packed, ...], stated: str) -> str:
    """Find the element type that the checkpoint had: that of most weights; for quantised ones, what is stated."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        if len(tensor.shape) > 1:
            sizes[tensor.kind if tensor.kind in _PLAIN else stated] += prod(tensor.shape)
    return sizes.most_common(1)[0][0] if sizes else "F32"


def _difference(beside: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Tell in which setting a config.json is another model's; "" where in none."""
    for key in _TELLING:
        values = stated(beside, key)
        if values and config[key] not in values:
            return f"{key} {values[0]}, not {config[key]}"
    return ""


def _raw(packed: Packed) -> StoredTensor:
    """See a tensor of plain numbers where it lies."""
    return StoredTensor(packed.name, packed.kind, packed.shape, packed.file, packed.offset)


class _View:
    """Gathers the tensors of one file under transformers' names."""

    def __init__(self, header: Header, family: Family, config: Mapping[str, Any], main: str) -> None:
        self.header, self.family, self.config, self.main = header, family, config, main
        self.made: list[StoredTensor] = []
        self.kinds: Counter[str] = Counter()

    def add_all(self) -> None:
        """Add every tensor.

        Raises:
            CheckpointError: some are not known, or of a type that cannot be read; they are named.
        """
        names = stems(self.family, self.config["num_hidden_layers"])
        unknown, unread = [], []
        for packed in self.header.tensors:
            stem, _, kind = packed.name.rpartition(".")
            if packed.name in ROPE_TENSORS:
                continue
            if kind not in {"weight", "bias"} or stem not in names:
                unknown.append(packed.name)
            elif packed.kind not in _PLAIN and not _is_read(packed.kind):
                unread.append(f"{packed.name} ({packed.kind})")
            else:
                self._add(packed, f"{names[stem]}.{kind}")
        told = {f"not known in {self.family.architecture}": unknown, "of a type that cannot be dequantised": unread}
        faults = [f"{why}: {list_some(found)}" for why, found in told.items() if found]
        if faults:
            raise CheckpointError(f"{self.header.file}: GGUF tensors {'; '.join(faults)}.")

    def _add(self, packed: Packed, name: str) -> None:
        self.kinds[packed.kind] += 1
        if "{}" not in name:
            self.made.append(self._one(packed, name, packed.shape, 0, 1))
            return
        count = packed.shape[0]
        self.made += [self._one(packed, name.format(i), packed.shape[1:], i, count) for i in range(count)]

    def _one(self, packed: Packed, name: str, shape: tuple[int, ...], part: int, parts: int) -> StoredTensor:
        """See one of `parts` equal parts of a tensor."""
        size = packed.nbytes // parts
        offset = packed.offset + part * size
        heads = self._heads(name)
        minus = 1.0 if self.family.shifted and name.endswith("norm.weight") else 0.0
        if name.endswith("shared_expert_gate.weight") and len(shape) == 1:
            shape = (1, *shape)
        # Files keep norms, biases and routers in float32, whatever they were.
        widened = packed.kind == "F32" and (len(packed.shape) == 1 or packed.name.split(".")[-2] in FLOAT32)
        native = self.main if widened or packed.kind not in _PLAIN else None
        if packed.kind in _PLAIN and not heads and not minus:
            return StoredTensor(name, packed.kind, shape, packed.file, offset, native=native)
        stored = StoredTensor(packed.name, "U8", (size,), packed.file, offset)
        rows = (*shape, 1) if heads and len(shape) == 1 else shape
        form = Rows(stored, packed.kind, rows[-1], size // max(1, prod(rows[:-1])), heads, minus)
        dtype = packed.kind if packed.kind in _PLAIN and not minus else "F32"
        made = Dequantised(form, rows, dtype)
        return StoredTensor(name, dtype, shape, packed.file, offset, derived=made, native=native)

    def _heads(self, name: str) -> int:
        """Count the heads whose rows are interleaved in a tensor."""
        if self.family.permuted and ".q_proj." in name:
            return int(self.config["num_attention_heads"])
        return int(self.config["num_key_value_heads"]) if self.family.permuted and ".k_proj." in name else 0

    def summary(self) -> str:
        """Tell in one sentence what is read and how."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.items())
        quantised = any(kind not in _PLAIN for kind in self.kinds)
        made = f"; what is quantised is made in float32 as it is read, and written as {DTYPES[self.main].name}"
        return f"GGUF, {self.family.architecture}: {kinds}{made if quantised else ''}."


def _is_read(kind: str) -> bool:
    gguf = gguf_package()
    code = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[code]
    try:
        with np.errstate(all="ignore"):
            gguf.quants.dequantize(np.zeros((1, size), np.uint8), code)
    except NotImplementedError:
        return False
    return bool(block)
