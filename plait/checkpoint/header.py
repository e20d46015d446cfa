"""The header of a safetensors file: 8 bytes of length, JSON, then the tensors without a gap.

Format: the safetensors README, "Format"; its own reader (Rust) sets the limits that are kept here.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from plait.checkpoint.names import check_name
from plait.checkpoint.types import StoredTensor
from plait.dtypes import DTYPES
from plait.errors import CheckpointError
from plait.hub.pieces import partial_file

__all__ = ["read_header"]

MAX_HEADER = 100_000_000
_FIRST_READ = 16_384  # most headers of a sharded model fit: one read a file
_LFS_POINTER = b"version https://git-lfs"
_SIZES = {code: dtype.size for code, dtype in DTYPES.items()}


def read_header(file: str) -> list[StoredTensor]:
    """Read and check the header of the safetensors file at the absolute path `file`; in order of offset.

    Raises:
        CheckpointError: the file cannot be read, breaks a rule of the format, or is cut short.
    """
    if (away := partial_file(file)) is not None:
        size, header = away.size, _header_bytes(file, away.stream().read, away.size)
        return _tensors(file, _parse(file, header), start=8 + len(header), size=size)
    try:
        fd = os.open(file, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            size = os.fstat(fd).st_size
            header = _header_bytes(file, partial(os.read, fd), size)
        finally:
            os.close(fd)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}.") from error
    return _tensors(file, _parse(file, header), start=8 + len(header), size=size)


def _header_bytes(file: str, read: Callable[[int], bytes], size: int) -> bytes:
    first = read(_FIRST_READ)
    if first.startswith(_LFS_POINTER):
        raise CheckpointError(f"{file}: a Git LFS pointer, not the weights. Run `git lfs pull` in that folder.")
    length = int.from_bytes(first[:8], "little")
    if size < 8 or length > size - 8:
        claim = f"its header should have {length} bytes, but " if len(first) >= 8 else ""
        raise CheckpointError(
            f"{file}: not a safetensors file, or cut short: {claim}the file has {size} bytes. Fetch or write it again."
        )
    if length > MAX_HEADER:
        raise CheckpointError(f"{file}: the header has {length} bytes; safetensors allows {MAX_HEADER}.")
    parts, have = [first[8:]], len(first) - 8
    while have < length:
        part = read(length - have)
        if not part:
            raise CheckpointError(f"{file}: cut short while its header was read.")
        parts.append(part)
        have += len(part)
    return b"".join(parts)[:length]


def _parse(file: str, header: bytes) -> dict[str, Any]:
    if not header.startswith(b"{"):
        raise CheckpointError(f"{file}: not a safetensors file: the header does not begin with '{{'.")
    try:
        entries = json.loads(header.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise CheckpointError(f"{file}: the header is not UTF-8.") from None
    except RecursionError:
        raise CheckpointError(f"{file}: the header is nested too deeply.") from None
    except ValueError as error:
        raise CheckpointError(f"{file}: the header is not valid: {error}.") from None
    metadata = entries.pop("__metadata__", None)
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values())
    ):
        raise CheckpointError(f"{file}: __metadata__ in the header must map text to text.")
    return dict(entries)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"{twice!a} is there twice")
    return made


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


def _tensors(file: str, entries: Mapping[str, Any], start: int, size: int) -> list[StoredTensor]:
    """Check that the tensors fill the rest of the file, without overlap or hole."""
    spans = sorted((_span(file, name, entry) for name, entry in entries.items()), key=lambda span: span[:2])
    end, before, tensors = 0, "the header", []
    for begin, stop, name, dtype, shape in spans:
        if begin != end:
            fault = "overlaps" if begin < end else f"leaves a hole of {begin - end} bytes after"
            raise CheckpointError(f"{file}: the tensor {name!a} at byte {begin} of the data {fault} {before}.")
        tensors.append(StoredTensor(name, dtype, shape, file, start + begin))
        end, before = stop, ascii(name)
    if start + end != size:
        what = (
            "cut short; fetch or write it again"
            if size < start + end
            else "longer than its header says; it is not the file that was written"
        )
        raise CheckpointError(f"{file}: {start + end} bytes expected by its header, {size} there: {what}.")
    return tensors


def _span(file: str, name: str, entry: Any) -> tuple[int, int, str, str, tuple[int, ...]]:
    """Check one entry; returns begin and end in the data, name, dtype code, shape."""
    check_name(file, name)
    try:
        code, shape, (begin, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            f"{file}: the header's entry of {name!a} must have dtype, shape and two data_offsets."
        ) from None
    width = _SIZES.get(code) if isinstance(code, str) else None
    if width is None:
        raise CheckpointError(
            f"{file}: the tensor {name!a} has the element type {code!a}; plait knows {', '.join(DTYPES)}."
        )
    if type(begin) is not int or type(stop) is not int or begin < 0 or stop < begin:
        raise CheckpointError(f"{file}: the data_offsets of {name!a} must be two whole numbers, begin <= end.")
    nbytes = width * _count(file, name, shape)
    if nbytes != stop - begin:
        raise CheckpointError(
            f"{file}: {name!a} is {code} of shape {shape}, which takes {nbytes} bytes, "
            f"but its data_offsets [{begin}, {stop}] span {stop - begin}."
        )
    return begin, stop, name, code, tuple(shape)


def _count(file: str, name: str, shape: Any) -> int:
    if not isinstance(shape, list):
        raise CheckpointError(f"{file}: the shape of {name!a} must be a list.")
    count = 1
    for length in shape:
        # `type is`, for True is an int in Python
        if type(length) is not int or not 0 <= length < 2**63:
            raise CheckpointError(f"{file}: the shape of {name!a} must be whole numbers from 0 up.")
        count *= length
        if count >= 2**63:
            raise CheckpointError(f"{file}: the shape of {name!a} has more elements than a file can hold.")
    return count
