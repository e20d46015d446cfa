"""Synthetic checkpoints that are not plain: quantised ones, adapters, and one with its tokens in another order.

Every kind is a merge that is measured beside the copy limit of the bytes that it reads and writes. The numbers are drawn
once and cut into tensors, so that checkpoints are made at the speed of the disk; no code is one that stands for NaN.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import yaml
from synthetic import PRESETS, Shape, config, generator, tensor_shapes

__all__ = ["KINDS", "Kind", "make_inputs", "write_recipe"]

_STRETCH = 1 << 24
_SIZES = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "I8": 1, "U8": 1, "I32": 4, "I64": 8}
SIZE = PRESETS["1b"]
VOCABULARY = replace(SIZE, layers=8, vocab=128256)
EXPERTS = (8, 2048, 2048)
"""Layers, inputs, and outputs of the second matrix, of eight experts each."""
_RANK = 16

Entry = tuple[str, tuple[int, ...], "str | np.ndarray"]
"""Element type, shape, and what the tensor holds: the name of a stretch, or the numbers."""
Tensors = dict[str, Entry]


@dataclass(frozen=True)
class Kind:
    """One merge."""

    title: str
    recipe: Callable[[Path], Mapping[str, Any]]
    """From the folder of all checkpoints to a recipe."""
    reads: tuple[str, ...]
    """Folders whose weights are read; the first has as many bytes as the output."""


def _weights(name: str, shape: tuple[int, ...]) -> Tensors:
    return {name: ("BF16", shape, "ones" if len(shape) == 1 else "weights")}


def fp8(name: str, shape: tuple[int, ...]) -> Tensors:
    """DeepSeek's blocks of 128 x 128."""
    blocks = tuple(-(-length // 128) for length in shape)
    return {name: ("F8_E4M3", shape, "fp8"), f"{name}_scale_inv": ("F32", blocks, "scales")}


def int8(name: str, shape: tuple[int, ...]) -> Tensors:
    """bitsandbytes' int8: one scale a row."""
    stem = name.removesuffix("weight")
    return {name: ("I8", shape, "bytes"), f"{stem}SCB": ("F32", shape[:1], "scales")}


def nf4(name: str, shape: tuple[int, ...]) -> Tensors:
    """bitsandbytes' nf4, scales in 8 bits."""
    count, blocks = prod(shape), prod(shape) // 64
    said = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": list(shape)}
    said |= {"nested_blocksize": 256, "nested_offset": 0.05, "nested_dtype": "float32"}
    state = np.frombuffer(json.dumps(said).encode(), np.uint8)
    table, nested = np.linspace(-1, 1, 16, dtype=np.float32), np.linspace(-1, 1, 256, dtype=np.float32)
    return {
        name: ("U8", (count // 2, 1), "bytes"),
        f"{name}.absmax": ("U8", (blocks,), "bytes"),
        f"{name}.quant_map": ("F32", (16,), table),
        f"{name}.nested_absmax": ("F32", (-(-blocks // 256),), "scales"),
        f"{name}.nested_quant_map": ("F32", (256,), nested),
        f"{name}.quant_state.bitsandbytes__nf4": ("U8", state.shape, state),
    }


def gptq(name: str, shape: tuple[int, ...]) -> Tensors:
    """GPTQ in 4 bits, groups of 128, columns in order."""
    stem, (outputs, inputs) = name.removesuffix("weight"), shape
    groups = -(-inputs // 128)
    return {
        f"{stem}qweight": ("I32", (inputs // 8, outputs), "bytes"),
        f"{stem}qzeros": ("I32", (groups, outputs // 8), "bytes"),
        f"{stem}scales": ("F16", (groups, outputs), "halves"),
        f"{stem}g_idx": ("I32", (inputs,), (np.arange(inputs) // 128).astype(np.int32)),
    }


def awq(name: str, shape: tuple[int, ...]) -> Tensors:
    """AWQ in 4 bits, groups of 128."""
    stem, (outputs, inputs) = name.removesuffix("weight"), shape
    groups = -(-inputs // 128)
    return {
        f"{stem}qweight": ("I32", (inputs, outputs // 8), "bytes"),
        f"{stem}qzeros": ("I32", (groups, outputs // 8), "bytes"),
        f"{stem}scales": ("F16", (groups, outputs), "halves"),
    }


def packed(name: str, shape: tuple[int, ...]) -> Tensors:
    """compressed-tensors' packed int4, groups of 128."""
    rows, columns = shape
    return {
        f"{name}_packed": ("I32", (rows, columns // 8), "bytes"),
        f"{name}_scale": ("BF16", (rows, -(-columns // 128)), "weights"),
        f"{name}_shape": ("I64", (2,), np.array(shape, np.int64)),
    }


FORMATS: dict[str, tuple[Callable[[str, tuple[int, ...]], Tensors], Mapping[str, Any]]] = {
    "fp8": (fp8, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    "int8": (int8, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    "nf4": (nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": 128, "checkpoint_format": "gptq"}),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}),
    "packed": (packed, {"quant_method": "compressed-tensors", "format": "pack-quantized"}),
}


def llama(size: Shape, form: Callable[[str, tuple[int, ...]], Tensors] = _weights) -> Tensors:
    """A Llama whose projections are in some format."""
    made: Tensors = {}
    for name, shape in tensor_shapes(size).items():
        made |= (form if "_proj." in name else _weights)(name, shape)
    return made


def experts(*, quantised: bool) -> Tensors:
    """GPT-OSS's experts, plain or as MXFP4."""
    made: Tensors = {}
    layers, inputs, inner = EXPERTS
    for layer in range(layers):
        for part, outputs in (("gate_up_proj", 2 * inner), ("down_proj", inner)):
            name = f"model.layers.{layer}.mlp.experts.{part}"
            made[f"{name}_bias"] = ("BF16", (8, outputs), "weights")
            if quantised:
                made[f"{name}_blocks"] = ("U8", (8, outputs, inputs // 32, 16), "bytes")
                made[f"{name}_scales"] = ("U8", (8, outputs, inputs // 32), "exponents")
            else:
                made[name] = ("BF16", (8, inputs, outputs), "weights")
    return made


def adapter(*, dora: bool) -> Tensors:
    """A LoRA for every projection."""
    made: Tensors = {}
    for name, (outputs, inputs) in ((n, s) for n, s in tensor_shapes(SIZE).items() if "_proj." in n):
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        made[f"{stem}.lora_A.weight"] = ("F32", (_RANK, inputs), "scales")
        made[f"{stem}.lora_B.weight"] = ("F32", (outputs, _RANK), "scales")
        if dora:
            made[f"{stem}.lora_magnitude_vector"] = ("F32", (outputs,), "scales")
    return made


@cache
def _stretch(what: str) -> bytes:
    """Bytes that tensors are cut from, for any element size."""
    draw = generator("inputs", what)
    if what == "bytes":
        return draw.bytes(4 * _STRETCH)
    if what == "exponents":
        return draw.integers(110, 124, _STRETCH, np.uint8).tobytes()
    if what == "ones":
        return np.ones(1 << 18, ml_dtypes.bfloat16).tobytes()
    normal = draw.standard_normal(_STRETCH, np.float32)
    kinds = {"weights": (ml_dtypes.bfloat16, 0.02), "fp8": (ml_dtypes.float8_e4m3fn, 50), "scales": (np.float32, 0.01)}
    kind, deviation = kinds.get(what, (np.float16, 0.01))
    return (normal * np.float32(deviation)).astype(kind).tobytes()


def _pieces(model: str, name: str, entry: Entry) -> Iterator[memoryview]:
    dtype, shape, what = entry
    if not isinstance(what, str):
        yield memoryview(np.ascontiguousarray(what).tobytes())
        return
    stretch, wanted = memoryview(_stretch(what)), prod(shape) * _SIZES[dtype]
    start = int(generator(model, name).integers(len(stretch) // 16)) * 8
    while wanted:
        piece = stretch[start : start + wanted]
        yield piece
        wanted, start = wanted - len(piece), 0


def _write(file: Path, model: str, tensors: Tensors) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (dtype, shape, _) in tensors.items():
        stop = offset + prod(shape) * _SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, stop]}
        offset = stop
    blob = json.dumps(header).encode()
    blob += b" " * (-len(blob) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(blob)) + blob)
        for name, entry in tensors.items():
            for piece in _pieces(model, name, entry):
                out.write(piece)


def _tokenizer(folder: Path, order: Sequence[int]) -> None:
    numbers = {f"token{i}": number for i, number in enumerate(order)}
    model = {"type": "BPE", "vocab": numbers, "merges": []}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))


def _checkpoint(name: str) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and config of one checkpoint."""
    about = config(SIZE)
    if name in FORMATS:
        form, settings = FORMATS[name]
        return llama(SIZE, form), about | {"quantization_config": settings}
    if name in {"experts", "mxfp4"}:
        about = {"model_type": "gpt_oss", "num_hidden_layers": EXPERTS[0], "torch_dtype": "bfloat16"}
        settings = {"quantization_config": {"quant_method": "mxfp4"}} if name == "mxfp4" else {}
        return experts(quantised=name == "mxfp4"), about | settings
    if name in {"lora", "lora2", "dora"}:
        about = {"peft_type": "LORA", "r": _RANK, "lora_alpha": 32, "target_modules": ["q_proj"]}
        return adapter(dora=name == "dora"), about | {"use_dora": name == "dora", "base_model_name_or_path": "plain"}
    if name in {"words", "shuffled"}:
        return llama(VOCABULARY), config(VOCABULARY)
    return llama(SIZE), about


def make_inputs(folder: Path, names: Sequence[str]) -> None:
    """Write these checkpoints under `folder`; finished ones are marked by a file `done` and left alone."""
    for name in names:
        here = folder / name
        tensors, about = _checkpoint(name)
        said = hashlib.sha256(repr([(n, d, s) for n, (d, s, _) in tensors.items()]).encode()).hexdigest()
        if (here / "done").is_file() and (here / "done").read_text() == said:
            continue
        here.mkdir(parents=True, exist_ok=True)
        of_adapter = "peft_type" in about
        _write(here / f"{'adapter_model' if of_adapter else 'model'}.safetensors", name, tensors)
        (here / f"{'adapter_config' if of_adapter else 'config'}.json").write_text(json.dumps(about, indent=1))
        if name in {"words", "shuffled"}:
            count = VOCABULARY.vocab
            _tokenizer(here, list(range(count)) if name == "words" else generator(name).permutation(count).tolist())
        (here / "done").write_text(said)


def _halves(*names: str, **more: str) -> Callable[[Path], Mapping[str, Any]]:
    """The mean of two models."""

    def recipe(data: Path) -> Mapping[str, Any]:
        models = [{"model": str(data / name), "parameters": {"weight": 0.5}} for name in names]
        return {"merge_method": "linear", "models": models, "dtype": "bfloat16", **more}

    return recipe


def _with_adapter(name: str) -> Callable[[Path], Mapping[str, Any]]:
    """An adapter put on its base, as peft's merge_and_unload does."""

    def recipe(data: Path) -> Mapping[str, Any]:
        models = [{"model": f"{data / 'plain'}+{data / name}"}]
        return {"merge_method": "passthrough", "models": models, "dtype": "bfloat16"}

    return recipe


def _two_adapters(data: Path) -> Mapping[str, Any]:
    models = [{"model": f"{data / 'plain'}+{data / name}", "parameters": {"weight": 0.5}} for name in ("lora", "lora2")]
    base = {"base_model": str(data / "plain"), "dtype": "bfloat16"}
    return {"merge_method": "task_arithmetic", "models": models, **base}


def _aligned(data: Path) -> Mapping[str, Any]:
    return {**_halves("words", "shuffled")(data), "base_model": str(data / "words"), "tokenizer_source": "base"}


KINDS: dict[str, Kind] = {
    "fp8": Kind("a plain model and FP8 in blocks", _halves("plain", "fp8"), ("plain", "fp8")),
    "int8": Kind("a plain model and bitsandbytes int8", _halves("plain", "int8"), ("plain", "int8")),
    "nf4": Kind("a plain model and bitsandbytes nf4", _halves("plain", "nf4"), ("plain", "nf4")),
    "gptq": Kind("a plain model and GPTQ, 4 bits", _halves("plain", "gptq"), ("plain", "gptq")),
    "awq": Kind("a plain model and AWQ, 4 bits", _halves("plain", "awq"), ("plain", "awq")),
    "packed": Kind("a plain model and compressed-tensors, 4 bits", _halves("plain", "packed"), ("plain", "packed")),
    "mxfp4": Kind("plain experts and MXFP4", _halves("experts", "mxfp4"), ("experts", "mxfp4")),
    "lora": Kind("a LoRA of rank 16 put on its base", _with_adapter("lora"), ("plain", "lora")),
    "dora": Kind("a DoRA of rank 16 put on its base", _with_adapter("dora"), ("plain", "dora")),
    "loras": Kind("two LoRAs of rank 16 on one base, task arithmetic", _two_adapters, ("plain", "lora", "lora2")),
    "aligned": Kind("a vocabulary of 128,256 tokens, shuffled", _aligned, ("words", "shuffled")),
}


def write_recipe(kind: Kind, data: Path, file: Path) -> Path:
    """Write the kind's recipe."""
    file.write_text(yaml.safe_dump(dict(kind.recipe(data))))
    return file
