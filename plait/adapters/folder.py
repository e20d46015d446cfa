"""The files of a peft LoRA folder: weights, adapter_config.json, a card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plait.checkpoint import FileReader, FileWriter, StoredTensor
from plait.dtypes import DTYPES
from plait.errors import OutputError

__all__ = ["CONFIG_NAME", "WEIGHTS_NAME", "Entry", "adapter_config", "write_text", "write_weights"]

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_PIECE = 1 << 23
"""Bytes copied at a time."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of the adapter's file, and where its bytes come from."""

    name: str
    """As peft calls it."""
    source: StoredTensor


def write_weights(folder: Path, entries: Sequence[Entry], reader: FileReader, on_bytes: Callable[[int], None]) -> int:
    """Write the adapter's weights, wider element types first; returns the file's size.

    Raises:
        OutputError: the disk is full, or the file cannot be written.
    """
    ordered = sorted(entries, key=lambda entry: -DTYPES[entry.source.dtype].size)
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for entry in ordered:
        spans = [end, end + entry.source.nbytes]
        table[entry.name] = {"dtype": entry.source.dtype, "shape": list(entry.source.shape), "data_offsets": spans}
        end = spans[1]
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    path = str(folder / WEIGHTS_NAME)
    place = 8 + len(text)
    with FileWriter() as writer:
        writer.create(path, place + end)
        writer.write_at(path, 0, len(text).to_bytes(8, "little") + text)
        for entry in ordered:
            _copy(entry.source, reader, writer, path, place)
            place += entry.source.nbytes
            on_bytes(entry.source.nbytes)
        writer.sync(path)
    return place


def _copy(source: StoredTensor, reader: FileReader, writer: FileWriter, path: str, place: int) -> None:
    width = DTYPES[source.dtype].size
    step = _PIECE // width
    for start in range(0, source.size, step):
        raw: npt.NDArray[np.uint8] = np.empty(min(step, source.size - start) * width, np.uint8)
        reader.read_elements(source, start, raw)
        writer.write_at(path, place + start * width, raw)


def adapter_config(
    base: str,
    config: Mapping[str, Any] | None,
    ranks: Mapping[str, int],
    *,
    targets: Sequence[str],
    modules: Sequence[str],
    biases: bool,
    fan_in_fan_out: bool,
    ties: bool,
) -> dict[str, Any]:
    """Make the content of adapter_config.json; alpha is the rank everywhere, so that peft scales by 1.

    Args:
        base: what the base is called.
        config: the base's config.json.
        ranks: module -> rank.
        targets: what the modules with factors are called.
        modules: those saved whole.
        biases: whether biases are saved beside the factors.
        fan_in_fan_out: whether weights are stored [in, out].
        ties: whether the head follows the saved embeddings.
    """
    rank = Counter(sorted(ranks.values(), reverse=True)).most_common(1)[0][0]
    # peft reads a key as a regular expression for the end of a name, and takes the first that matches
    others = {name: ranks[name] for name in sorted(ranks, key=lambda name: (-len(name), name)) if ranks[name] != rank}
    said = {
        "alpha_pattern": others,
        "base_model_name_or_path": base,
        "bias": "all" if biases else "none",
        "fan_in_fan_out": fan_in_fan_out,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": list(modules) or None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": others,
        "target_modules": list(targets),
        "task_type": _task(config),
        "use_dora": False,
        "use_rslora": False,
    }
    return said | ({"ensure_weight_tying": True} if ties else {})


def _task(config: Mapping[str, Any] | None) -> str | None:
    """peft's word for the model's class; None where the word would make peft save heads by itself."""
    known = config or {}
    name = str((known.get("architectures") or [""])[0])
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "CAUSAL_LM"
    return "SEQ_2_SEQ_LM" if name.endswith("ForConditionalGeneration") and known.get("is_encoder_decoder") else None


def write_text(path: Path, text: str) -> None:
    """Write a text file with Unix line ends. Raises OutputError."""
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}.") from error
