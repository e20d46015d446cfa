"""Files of a hub of which only some bytes are here: headers are read of them, before or instead of the weights."""

from __future__ import annotations

import io
import os
import struct
import threading
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from plait.errors import CheckpointError
from plait.hub.faults import hub_faults, patiently
from plait.hub.library import is_offline
from plait.hub.requests import ask, file_url
from plait.hub.store import Entry, pieces_file

__all__ = ["PartialFile", "forget", "names_in", "notes_on", "partial_file", "prefetch_headers", "register"]

_BLOCK = 4096
_FIRST = 24
"""Blocks asked for at a file's begin, 98 kB: most headers, at once."""
_MOST = 100_000_000
"""Bytes of a header: what safetensors allows."""
_RECORD = struct.Struct("<QII")  # offset, length, CRC-32; then the bytes
_HEADERS_AT_ONCE = 8


class PartialFile:
    """A file of a commit that is not in the cache. Any thread may read of it; what was read is kept for the next time."""

    def __init__(self, path: str, repo: str, commit: str, entry: Entry) -> None:
        """Make one for the file that will lie at `path`."""
        self.path = path
        self.repo = repo
        self.commit = commit
        self.entry = entry
        self._blocks: dict[int, bytes] | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The file's name in its repository."""
        return Path(self.path).name

    @property
    def shown(self) -> str:
        """What progress calls it."""
        return f"{self.repo}: {self.name}"

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.entry.size

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, fewer at the file's end.

        Raises:
            CheckpointError: the hub does not give them.
        """
        end = min(offset + length, self.size)
        if end <= offset:
            return b""
        with self._lock:
            if self._blocks is None:
                self._blocks = self._kept()
            first, last = offset // _BLOCK, (end - 1) // _BLOCK
            for begin, stop in _gaps(self._blocks, first, last):
                self._ask(self._blocks, begin, max(stop, _FIRST) if begin == 0 else stop)
            joined = b"".join(self._blocks[index] for index in range(first, last + 1))
        return joined[offset - first * _BLOCK : end - first * _BLOCK]

    def stream(self) -> IO[bytes]:
        """Return the file as one that can be read from, and sought in."""
        return io.BufferedReader(_Stream(self), 512)

    def has_header(self) -> bool:
        """Whether the file's begin is here."""
        with self._lock:
            if self._blocks is None:
                self._blocks = self._kept()
            return 0 in self._blocks

    def _ask(self, blocks: dict[int, bytes], begin: int, stop: int) -> None:
        low, high = begin * _BLOCK, min(stop * _BLOCK, self.size)
        if is_offline():
            raise CheckpointError(_not_here([self]))
        with hub_faults(self.repo, self.commit):
            found = patiently(lambda: self._fetched(low, high))
        for index in range(begin, -(-high // _BLOCK)):
            at = index * _BLOCK - low
            blocks[index] = found[at : at + _BLOCK]
        self._keep(low, found)

    def _fetched(self, low: int, high: int) -> bytes:
        parts: list[bytes] = []
        with ask(file_url(self.repo, self.commit, self.name), low, high) as answer:
            if answer.size is not None and answer.size != self.size:
                raise CheckpointError(
                    f"{self.repo}: {self.name} should have {self.size} bytes, but the hub sends a file of {answer.size}. "
                    "Try again; if it stays so, the repository is damaged"
                )
            at = answer.begin  # of a server that knows no ranges: 0, and all before `low` is thrown away
            if not (at == low or (at == 0 and high <= _MOST)):
                raise CheckpointError(f"{self.repo}: {self.name}: the server does not give parts of files")
            for chunk in answer.chunks:
                parts.append(chunk[max(0, low - at) : high - at])
                at += len(chunk)
                if at >= high:
                    break
        joined = b"".join(parts)
        if len(joined) != high - low:
            raise ConnectionError(f"{len(joined)} bytes of {high - low} came")
        return joined

    def _kept(self) -> dict[int, bytes]:
        blocks: dict[int, bytes] = {}
        file = pieces_file(self.entry)
        try:
            data = file.read_bytes() if file else b""
        except OSError:
            return blocks
        at = 0
        while at + _RECORD.size <= len(data):
            offset, length, check = _RECORD.unpack_from(data, at)
            at += _RECORD.size
            piece = data[at : at + length]
            at += length
            if len(piece) < length or zlib.crc32(piece) != check or offset % _BLOCK or offset + length > self.size:
                break
            for start in range(0, length, _BLOCK):
                blocks[(offset + start) // _BLOCK] = piece[start : start + _BLOCK]
        return blocks

    def _keep(self, offset: int, piece: bytes) -> None:
        file = pieces_file(self.entry)
        if file is None:
            return
        with suppress(OSError):  # a cache that cannot be written to does no harm
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("ab", buffering=0) as stream:
                stream.write(_RECORD.pack(offset, len(piece), zlib.crc32(piece)) + piece)


class _Stream(io.RawIOBase):
    """A partial file as a stream."""

    def __init__(self, file: PartialFile) -> None:
        super().__init__()
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed's private Buffer
        found = self._file.read(self._at, len(buffer))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


def _gaps(blocks: dict[int, bytes], first: int, last: int) -> list[tuple[int, int]]:
    """Runs of blocks, end excluded, that are not here."""
    runs: list[tuple[int, int]] = []
    for index in range(first, last + 1):
        if index in blocks:
            continue
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs


_KNOWN: dict[str, dict[str, PartialFile]] = {}
"""By folder of huggingface_hub's cache and name: what a folder will have, once it is fetched."""


_NOTES: dict[str, tuple[str, ...]] = {}


def register(folder: Path, files: Iterable[PartialFile], notes: Sequence[str]) -> None:
    """Make known which files of a folder of the cache can be had, though they are not there; and what to say of it."""
    _KNOWN[str(folder)] = {file.name: file for file in files}
    _NOTES[str(folder)] = tuple(notes)


def notes_on(folder: str | Path) -> tuple[str, ...]:
    """Return what a reader should know of a folder of the cache; nothing of any other folder."""
    return _NOTES.get(str(folder), ())


def forget(file: PartialFile) -> None:
    """Take back what `register` made known: the file is there."""
    _KNOWN.get(str(Path(file.path).parent), {}).pop(file.name, None)


def names_in(folder: str | Path) -> tuple[str, ...]:
    """Return the names of the files of a folder that are not there, but can be had."""
    return tuple(_KNOWN.get(str(folder), ()))


def partial_file(path: str) -> PartialFile | None:
    """Return what stands for a file that is not there; None for every other path."""
    if not _KNOWN:
        return None
    folder, _, name = path.rpartition(os.sep)
    found = _KNOWN.get(folder, {}).get(name)
    if found is not None and Path(path).exists():  # fetched meanwhile
        forget(found)
        return None
    return found


def _not_here(files: Sequence[PartialFile]) -> str:
    names = ", ".join(file.name for file in files)
    one = files[0]
    return (
        f"{one.repo} at commit {one.commit}: not in the cache, not even by header: {names}. HF_HUB_OFFLINE is set, so "
        f"nothing can be fetched. Unset it, or fetch them first: hf download {one.repo} --revision {one.commit}"
    )


def prefetch_headers(folder: str, names: Iterable[str]) -> None:
    """Read the headers of safetensors files of `folder` that are not there, several at once.

    Raises:
        CheckpointError: the hub does not give one of them.
    """
    files = [file for name in names if name.endswith(".safetensors") and (file := partial_file(folder + os.sep + name))]
    if len(files) < 2:
        return
    from concurrent.futures import ThreadPoolExecutor

    if is_offline() and (missing := [file for file in files if not file.has_header()]):
        raise CheckpointError(_not_here(missing))
    with ThreadPoolExecutor(_HEADERS_AT_ONCE) as pool:
        list(pool.map(_read_header, files))


def _read_header(file: PartialFile) -> None:
    length = int.from_bytes(file.read(0, 8), "little")
    if length <= min(_MOST, file.size):
        file.read(8, length)
