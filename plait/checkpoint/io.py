"""Positioned reads and writes from many threads: preadv and pwrite, or seek under a lock where they are missing."""

from __future__ import annotations

import errno
import io
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from plait.checkpoint.loops import run_loop
from plait.checkpoint.open_files import LIMIT, OpenFiles, plain_io
from plait.checkpoint.types import StoredTensor
from plait.dtypes import DTYPES
from plait.errors import CheckpointError, OutputError
from plait.hub.pieces import PartialFile, partial_file

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

__all__ = ["FileReader", "FileWriter"]

T = TypeVar("T")
Buffer = memoryview | bytearray | bytes | NDArray[np.uint8]

_MOST = 1 << 30  # bytes a call; Linux stops just below 2 GiB, macOS refuses more
# The kernel reads ahead no more than the device's window for one request, 128 KiB by default; the rest of a longer
# request is dropped without a word.
_WINDOW = 128 * 1024
_SMALL = 1 << 20  # bytes a call that may come over the network
_KEPT = 1 << 27  # bytes of turned and derived tensors that a thread keeps, beside the last one
_NO_SPACE = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})


class FileReader:
    """Reads byte ranges of many files. Any thread may call any method."""

    def __init__(self, limit: int = LIMIT, keep: int = _KEPT) -> None:
        """Keep at most `limit` files open that are not being read at the moment, and for each thread `keep` bytes."""
        self._files = OpenFiles(lambda file: io.FileIO(file, "r"), limit)
        self._keep = keep
        self._plain = plain_io()
        self._local = threading.local()

    def read_into(self, file: str, offset: int, buffer: memoryview | bytearray | NDArray[np.uint8]) -> None:
        """Fill `buffer`, C-contiguous, with the bytes of `file` from `offset` on.

        Raises:
            CheckpointError: the file ends before, or cannot be read.
        """
        view = _bytes_of(buffer)
        if (away := partial_file(file)) is not None:
            _fill_from_hub(away, offset, view)
            return
        try:
            held = self._files.acquire(file)
            try:
                if self._plain:
                    with held.lock:
                        held.raw.seek(offset)
                        done = _fill_plainly(held.raw, view)
                else:
                    done = _fill(held.fd, offset, view)
            finally:
                self._files.release(held)
        except OSError as error:
            raise CheckpointError(f"{file}: cannot be read: {error.strerror}.") from error
        if done < len(view):
            raise CheckpointError(
                f"{file}: truncated while reading: {len(view)} bytes wanted at {offset}, {done} there. "
                "The file was changed after its header was read."
            )

    def read_pieces(
        self,
        file: str,
        offsets: NDArray[np.int64],
        places: NDArray[np.int64],
        lengths: NDArray[np.int64],
        out: NDArray[np.uint8],
    ) -> None:
        """Read `lengths[i]` bytes of `file` from `offsets[i]` on into `out`, C-contiguous, from `places[i]` on.

        Raises:
            CheckpointError: as `read_into`.
        """
        away = self._plain or partial_file(file) is not None
        done = 0 if away else self._pieces(file, offsets, places, lengths, out)
        for i in range(done, len(offsets)):
            place = int(places[i])
            self.read_into(file, int(offsets[i]), out[place : place + int(lengths[i])])

    def read_spans(self, tensor: StoredTensor, spans: Sequence[tuple[int, int]], out: NDArray[np.uint8]) -> None:
        """Read the bytes of elements [start, stop) of every span into `out`, one after the other.

        Raises:
            CheckpointError: as `read_into`.
        """
        size = DTYPES[tensor.dtype].size
        starts, stops = (np.array([span[i] for span in spans], np.int64) * size for i in (0, 1))
        lengths = stops - starts
        places = np.cumsum(lengths) - lengths
        if tensor.derived is None and tensor.strides is None:
            self.read_pieces(tensor.file, tensor.offset + starts, places, lengths, out)
            return
        for (start, _), place, length in zip(spans, places.tolist(), lengths.tolist(), strict=True):
            self.read_elements(tensor, start, out[place : place + length])

    def _pieces(self, file: str, *pieces: NDArray[Any]) -> int:
        """Read as many as can be read without a hitch; return how many."""
        try:
            held = self._files.acquire(file)
        except OSError:
            return 0
        try:
            return run_loop("pieces", "read_pieces", held.fd, *pieces)
        finally:
            self._files.release(held)

    def read_elements(self, tensor: StoredTensor, start: int, out: NDArray[np.uint8]) -> None:
        """Fill `out`, C-contiguous, with the bytes of the tensor's elements, counted row by row, from `start` on.

        A tensor that is not stored row by row is read whole and turned; each thread keeps the last few. One that no file
        holds as such is made.

        Raises:
            CheckpointError: as `read_into`.
        """
        width = DTYPES[tensor.dtype].size
        if tensor.derived is not None:
            tensor.derived.read(self, start, out)
        elif tensor.strides is None:
            self.read_into(tensor.file, tensor.offset + start * width, out)
        else:
            out[:] = self._turned(tensor)[start * width : start * width + len(out)]

    def kept(self, key: Hashable, make: Callable[[], NDArray[Any]], most: int | None = None) -> NDArray[Any]:
        """Return what `make` made for `key`, which must say all that decides it; each thread keeps its last few.

        They are `most` bytes a thread, or what the reader keeps, and the last one whatever its size. None may be
        written to.
        """
        found = self.recall(key)
        return self.keep(key, make(), most) if found is None else found

    def recall(self, key: Hashable) -> Any:
        """Return what this thread keeps for `key`, or None."""
        kept = self._local.__dict__.get("kept")
        if kept is None or key not in kept:
            return None
        kept.move_to_end(key)
        return kept[key]

    def keep(self, key: Hashable, made: T, most: int | None = None) -> T:
        """Keep, for this thread, an object that knows its `nbytes`, in place of an older one; returns it. See `kept`."""
        kept: OrderedDict[Hashable, Any] = self._local.__dict__.setdefault("kept", OrderedDict())
        kept[key] = made
        kept.move_to_end(key)
        room = self._keep if most is None else most
        while len(kept) > 1 and sum(one.nbytes for one in kept.values()) > room:
            kept.popitem(last=False)
        return made

    def latest(
        self, owner: str, key: Hashable, make: Callable[[], tuple[NDArray[Any], ...]]
    ) -> tuple[NDArray[Any], ...]:
        """Return what `make` made for `key`; each thread keeps the last one of each owner. None may be written to."""
        kept: dict[str, tuple[Hashable, tuple[NDArray[Any], ...]]] = self._local.__dict__.setdefault("latest", {})
        if owner not in kept or kept[owner][0] != key:
            kept.pop(owner, None)  # so that two are never held
            kept[owner] = key, make()
        return kept[owner][1]

    def _turned(self, tensor: StoredTensor) -> NDArray[np.uint8]:
        def turn() -> NDArray[np.uint8]:
            raw = np.empty(tensor.reach, np.uint8)
            self.read_into(tensor.file, tensor.offset, raw)
            width = DTYPES[tensor.dtype].size
            steps = (*(step * width for step in tensor.strides or ()), 1)
            view = np.lib.stride_tricks.as_strided(raw, (*tensor.shape, width), steps, writeable=False)
            return np.ascontiguousarray(view).reshape(-1)

        return self.kept(tensor, turn)

    def advise(self, file: str, offset: int, length: int) -> None:
        """Tell the system that these bytes will be read soon; does nothing where that cannot be told."""
        if not hasattr(os, "posix_fadvise"):
            return
        try:
            held = self._files.acquire(file)
        except OSError:
            return  # reading will say so
        try:
            for start in range(offset, offset + length, _WINDOW):
                os.posix_fadvise(held.fd, start, min(_WINDOW, offset + length - start), os.POSIX_FADV_WILLNEED)
        except OSError:
            pass  # a file system without read-ahead
        finally:
            self._files.release(held)

    def close(self) -> None:
        """Close all files. Reads under way finish; later ones raise ValueError."""
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FileWriter:
    """Writes byte ranges of many files. Any thread may call any method."""

    def __init__(self, limit: int = LIMIT) -> None:
        """Keep at most `limit` files open that are not being written at the moment."""
        self._files = OpenFiles(lambda file: io.FileIO(file, "r+"), limit)
        self._plain = plain_io()

    def create(self, file: str, size: int) -> None:
        """Make `file` with `size` bytes, all zero and none of them on the disk yet (a sparse file).

        A file that is there keeps its bytes and gets the new length, so that a merge may go on with it.

        Raises:
            OutputError: the system refused.
        """
        try:
            fd = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
            try:
                os.ftruncate(fd, size)
            finally:
                os.close(fd)
        except OSError as error:
            raise _output_error(file, size, error) from error

    def write_at(self, file: str, offset: int, buffer: Buffer) -> None:
        """Write `buffer`, C-contiguous, into `file` (see `create`) from `offset` on.

        Raises:
            OutputError: the disk is full, or the file is missing or cannot be written.
        """
        view = _bytes_of(buffer)
        try:
            held = self._files.acquire(file)
            try:
                if self._plain:
                    with held.lock:
                        held.raw.seek(offset)
                        _drain_plainly(held.raw, view)
                else:
                    _drain(held.fd, offset, view)
            finally:
                self._files.release(held)
        except OSError as error:
            raise _output_error(file, len(view), error) from error

    def sync(self, file: str) -> None:
        """Wait until all that was written to `file` is on the disk.

        Raises:
            OutputError: the system could not write it.
        """
        try:
            held = self._files.acquire(file)
            try:
                os.fsync(held.fd)
            finally:
                self._files.release(held)
        except OSError as error:
            raise _output_error(file, 0, error) from error

    def close(self) -> None:
        """Close all files. Writes under way finish; later ones raise ValueError."""
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _bytes_of(buffer: Buffer) -> memoryview:
    view = buffer.data if isinstance(buffer, np.ndarray) else memoryview(buffer)
    return view.cast("B") if view.nbytes else memoryview(b"")


def _fill_from_hub(away: PartialFile, offset: int, view: memoryview) -> None:
    """Read what little of a file that is not fetched a plan needs, such as how a quantised weight is packed."""
    if len(view) > _SMALL:
        raise CheckpointError(f"{away.path}: not fetched from the hub yet.")
    found = away.read(offset, len(view))
    if len(found) < len(view):
        raise CheckpointError(f"{away.path}: {len(view)} bytes wanted at {offset}, {len(found)} there.")
    view[:] = found


def _fill(fd: int, offset: int, view: memoryview) -> int:
    """Read until `view` is full or the file ends; returns the bytes read."""
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done : done + _MOST]], offset + done)
        if not count:
            break
        done += count
    return done


def _fill_plainly(raw: io.FileIO, view: memoryview) -> int:
    done = 0
    while done < len(view):
        count = raw.readinto(view[done : done + _MOST])
        if not count:
            break
        done += count
    return done


def _drain(fd: int, offset: int, view: memoryview) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(fd, view[done : done + _MOST], offset + done)


def _drain_plainly(raw: io.FileIO, view: memoryview) -> None:
    done = 0
    while done < len(view):
        done += raw.write(view[done : done + _MOST]) or 0


def _output_error(file: str, need: int, error: OSError) -> OutputError:
    if error.errno in _NO_SPACE:
        folder = Path(file).parent
        free = shutil.disk_usage(folder).free
        return OutputError(
            f"{file}: no space left on the disk of {folder}: {need} bytes to be written, {free} free. "
            "Free some space, or name another folder, and run it again: it goes on where it stopped."
        )
    return OutputError(f"{file}: cannot be written: {error.strerror}.")
