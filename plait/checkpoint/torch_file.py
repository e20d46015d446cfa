"""The files that torch.save writes, read without torch: where each tensor's bytes lie, and nothing run.

Two formats: a zip archive whose entries are stored uncompressed (torch 1.6 and later), and a row of pickles followed
by the storages (before). Both are read up to the weights only.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from plait.checkpoint.names import check_name, list_some
from plait.checkpoint.pickles import MAX_PICKLE, PickledStorage, PickledTensor, read_pickle
from plait.checkpoint.types import StoredTensor
from plait.errors import CheckpointError
from plait.hub.pieces import partial_file

__all__ = ["read_torch_file"]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field
_RESAVE = "Load it with torch and save the weights again as safetensors."


@dataclass(frozen=True, slots=True)
class _Block:
    """A run of bytes in the file."""

    offset: int
    nbytes: int


def read_torch_file(file: str) -> tuple[list[StoredTensor], list[str]]:
    """Find the tensors of a state dict in the file that torch.save wrote at the absolute path `file`.

    Returns: the tensors in the order in which they were saved, and notes.

    Raises:
        CheckpointError: the file is no such file, is cut short, asks for code, or has no state dict in it.
    """
    try:
        away = partial_file(file)
        with Path(file).open("rb") if away is None else away.stream() as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            start = stream.read(512)
            stream.seek(0)
            if start.startswith(b"PK\x03\x04"):
                return _read_zip(file, stream, size)
            return _read_legacy(file, stream, size, start)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}.") from error


def _read_zip(file: str, stream: IO[bytes], size: int) -> tuple[list[StoredTensor], list[str]]:
    entries = _directory(file, stream)
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1 or any(name.endswith("/constants.pkl") for name in entries):
        raise CheckpointError(f"{file}: a zip archive, but not one with a state dict that torch.save wrote. {_RESAVE}")
    prefix = pickles[0].removesuffix("data.pkl")

    def locate(name: str) -> _Block:
        if name not in entries:
            raise CheckpointError(f"{file}: the storage {name!a} is missing; the file is not whole.")
        return _locate(file, stream, size, entries[name])

    def read(name: str) -> bytes:
        block = locate(name)
        if block.nbytes > MAX_PICKLE:
            raise CheckpointError(f"{file}: {name!a} has {block.nbytes} bytes; {MAX_PICKLE} is the limit.")
        stream.seek(block.offset)
        return stream.read(block.nbytes)

    if f"{prefix}byteorder" in entries and (order := read(f"{prefix}byteorder")) != b"little":
        raise CheckpointError(f"{file}: its byte order is {order!a}; plait reads little-endian files. {_RESAVE}")
    pickled = read_pickle(file, io.BytesIO(read(pickles[0])))
    state = _find_state_dict(file, pickled.value)
    blocks = {}
    for key in {tensor.storage.key for tensor in state.tensors.values()}:
        blocks[key] = block = locate(f"{prefix}data/{key}")
        _check_length(file, pickled.storages[key], block.nbytes)
    return _place_all(file, state, {key: block.offset for key, block in blocks.items()})


def _directory(file: str, stream: IO[bytes]) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(stream) as archive:
            listed = archive.infolist()
    except Exception as error:
        raise CheckpointError(f"{file}: a broken zip archive, or one cut short ({error}).") from error
    entries = {info.filename: info for info in listed}
    if len(entries) != len(listed):
        raise CheckpointError(f"{file}: a zip archive with two entries of one name; refused.")
    return entries


def _locate(file: str, stream: IO[bytes], size: int, info: zipfile.ZipInfo) -> _Block:
    """Find an entry's bytes: behind its local header, whose extra field differs from the directory's."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
        raise CheckpointError(f"{file}: {info.filename!a} is compressed or encrypted; torch.save stores plainly.")
    stream.seek(info.header_offset)
    header = stream.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise CheckpointError(f"{file}: the zip directory points {info.filename!a} to where no entry is.")
    _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    offset = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    if offset + info.file_size > size:
        raise CheckpointError(f"{file}: {info.filename!a} reaches past the end of the file; it is cut short.")
    return _Block(offset, info.file_size)


def _read_legacy(file: str, stream: IO[bytes], size: int, start: bytes) -> tuple[list[StoredTensor], list[str]]:
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{file}: a Git LFS pointer, not the weights. Run `git lfs pull` in that folder.")
    if not start.startswith(b"\x80"):
        raise CheckpointError(f"{file}: not a file that torch.save wrote. plait reads safetensors and state dicts.")
    if read_pickle(file, stream).value != _LEGACY_MAGIC:
        raise CheckpointError(f"{file}: a pickle, but not one that torch.save wrote. {_RESAVE}")
    version, system = read_pickle(file, stream).value, read_pickle(file, stream).value
    if version != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError(f"{file}: of a protocol or byte order that plait does not read. {_RESAVE}")
    pickled = read_pickle(file, stream)
    state = _find_state_dict(file, pickled.value)
    offsets = _legacy_offsets(file, stream, size, read_pickle(file, stream).value, pickled.storages)
    return _place_all(file, state, offsets)


def _legacy_offsets(
    file: str, stream: IO[bytes], size: int, keys: Any, storages: Mapping[str, PickledStorage]
) -> dict[str, int]:
    """Walk over the storages at the end of the file: each an int64 count of elements, then the elements."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise CheckpointError(f"{file}: its list of storages is not that of its tensors; the file is broken.")
    offsets = {}
    at = stream.tell()
    for key in keys:
        stream.seek(at)
        count = stream.read(8)
        if len(count) == 8:
            _check_length(file, storages[key], int.from_bytes(count, "little") * storages[key].width)
        offsets[key] = at + 8
        at += 8 + storages[key].total * storages[key].width
        if at > size:
            raise CheckpointError(f"{file}: at least {at} bytes expected, {size} there: cut short; fetch it again.")
    if at != size or len(offsets) != len(keys):
        raise CheckpointError(f"{file}: {at} bytes expected, {size} there; it is not the file that was written.")
    return offsets


def _check_length(file: str, storage: PickledStorage, nbytes: int) -> None:
    expected = storage.total * storage.width
    if nbytes != expected:
        raise CheckpointError(
            f"{file}: the storage {storage.key!a} has {nbytes} bytes, its pickle says {expected}; the file is broken."
        )


@dataclass(frozen=True, slots=True)
class _StateDict:
    tensors: Mapping[str, PickledTensor]
    notes: tuple[str, ...]


def _find_state_dict(file: str, value: Any) -> _StateDict:
    """Find the one mapping of names to tensors: the whole pickle, or one entry of it."""
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: no state dict (names and tensors) in it. {_RESAVE}")
    if _has_tensors(value):
        return _split(file, value, ())
    nested = [key for key, entry in value.items() if isinstance(entry, dict) and _has_tensors(entry)]
    if len(nested) != 1:
        found = f"{len(nested)} of them, under {list_some(nested)}" if nested else "none"
        raise CheckpointError(f"{file}: one state dict (names and tensors) expected, {found} found. {_RESAVE}")
    others = [key for key in value if key != nested[0]]
    note = f"{Path(file).name}: the weights are under {nested[0]!a}"
    return _split(file, value[nested[0]], (note + (f"; not read: {list_some(others)}." if others else "."),))


def _has_tensors(value: Mapping[Any, Any]) -> bool:
    return any(isinstance(entry, PickledTensor) for entry in value.values())


def _split(file: str, value: Mapping[Any, Any], notes: tuple[str, ...]) -> _StateDict:
    tensors = {name: entry for name, entry in value.items() if isinstance(entry, PickledTensor)}
    for name in tensors:
        if not isinstance(name, str):
            raise CheckpointError(f"{file}: a tensor is named {name!a}, which is no text. {_RESAVE}")
        check_name(file, name)
    others = [name for name in value if name not in tensors]
    if others:
        notes += (f"{Path(file).name}: entries that are no tensors, not read: {list_some(others)}.",)
    return _StateDict(tensors, notes)


def _place_all(file: str, state: _StateDict, offsets: Mapping[str, int]) -> tuple[list[StoredTensor], list[str]]:
    placed = [_place(file, name, tensor, offsets[tensor.storage.key]) for name, tensor in state.tensors.items()]
    return placed, list(state.notes)


def _place(file: str, name: str, tensor: PickledTensor, block: int) -> StoredTensor:
    storage, width = tensor.storage, tensor.dtype.size
    begin = storage.start * storage.width + tensor.offset * width
    strides = None if tensor.is_contiguous else tensor.stride
    placed = StoredTensor(name, tensor.dtype.code, tensor.shape, file, block + begin, strides)
    if min(tensor.stride, default=0) < 0 or begin + placed.reach > (storage.start + storage.count) * storage.width:
        raise CheckpointError(f"{file}: the tensor {name!a} reaches past the end of its storage; the file is broken.")
    return placed
