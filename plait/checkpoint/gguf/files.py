"""Which GGUF files are a model, and what they hold together."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from plait.checkpoint.gguf.header import Header, read_gguf_header
from plait.checkpoint.names import list_some, natural_key
from plait.errors import CheckpointError

__all__ = ["gguf_in", "read_headers"]

_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_OTHER_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.safetensors.index.json")
_COMPANIONS = ("mmproj", "imatrix")


def gguf_in(path: Path) -> Path | None:
    """Find the GGUF file that is meant by a path: itself, or the only model of a folder without other weights.

    Of a model in several files it is the first; vision projectors (mmproj) and importance matrices are no models.

    Raises:
        CheckpointError: a folder has several.
    """
    if path.suffix == ".gguf":
        return path if path.is_file() else None
    if not path.is_dir() or any(next(path.glob(pattern), None) for pattern in _OTHER_WEIGHTS):
        return None
    found = sorted((file.name for file in path.glob("*.gguf")), key=natural_key)
    models = [name for name in found if not any(word in name.lower() for word in _COMPANIONS)]
    firsts = [name for name in models if _is_first(name)] or models[:1]
    if len(firsts) > 1:
        raise CheckpointError(
            f"{path}: {len(firsts)} GGUF models: {list_some(firsts, 12)}. Name one of them: {path / firsts[0]}."
        )
    return path / firsts[0] if firsts else None


def _is_first(name: str) -> bool:
    part = _PART.fullmatch(name)
    return part is None or int(part[2]) == 1


def read_headers(file: Path) -> Header:
    """Read a file's header; of a model in several files, that of all of them as one, whichever is named.

    Raises:
        CheckpointError: a part is missing, or cannot be read.
    """
    part = _PART.fullmatch(file.name)
    if part is None:
        header = read_gguf_header(str(file))
        if header.number("split.count", 1) > 1:
            raise CheckpointError(f"{file}: one of {header.number('split.count')} files, whose names do not say which.")
        return header
    names = [f"{part[1]}-{number:05}-of-{part[3]}.gguf" for number in range(1, int(part[3]) + 1)]
    missing = [name for name in names if not (file.parent / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{file}: the model is in {len(names)} files, of which {list_some(missing)} are not there."
        )
    headers = [read_gguf_header(str(file.parent / name)) for name in names]
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise CheckpointError(f"{file}: the files of the model hold some tensor twice.")
    return replace(headers[0], tensors=tensors)
