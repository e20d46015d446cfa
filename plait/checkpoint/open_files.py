"""File descriptors kept open between reads: bounded in number, never closed under a user."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["LIMIT", "OpenFile", "OpenFiles", "plain_io"]

LIMIT = 256  # the soft limit of open files is 256 on macOS and 1024 on Linux; shards may be 800 a checkpoint


def plain_io() -> bool:
    """Whether to do without pread and pwrite: the system lacks them, or PLAIT_PLAIN_IO is set and not 0."""
    return not (hasattr(os, "preadv") and hasattr(os, "pwrite")) or os.environ.get("PLAIT_PLAIN_IO", "0") != "0"


class OpenFile:
    """One open file, the number of its present users, and a lock for those who must seek."""

    __slots__ = ("fd", "lock", "raw", "users")

    def __init__(self, raw: io.FileIO) -> None:
        self.raw = raw
        self.fd = raw.fileno()
        self.users = 0
        self.lock = threading.Lock()


class OpenFiles:
    """The open files of one reader or writer, least recently used first. Safe to use from many threads."""

    def __init__(self, opener: Callable[[str], io.FileIO], limit: int = LIMIT) -> None:
        self._opener = opener
        self._limit = limit
        self._files: OrderedDict[str, OpenFile] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False

    def acquire(self, file: str) -> OpenFile:
        """Open `file`, or take it as already open; it stays open until `release`.

        Raises:
            OSError: the system would not open it.
            ValueError: after `close`.
        """
        with self._lock:
            if self._closed:
                raise ValueError("the reader or writer is closed")
            held = self._files.get(file)
            if held is None:
                self._make_room()
                held = self._files[file] = OpenFile(self._opener(file))
            else:
                self._files.move_to_end(file)
            held.users += 1
            return held

    def release(self, held: OpenFile) -> None:
        """Give back what `acquire` gave."""
        with self._lock:
            held.users -= 1
            if self._closed and not held.users:
                held.raw.close()

    def close(self) -> None:
        """Close every file; those in use are closed by their last user."""
        with self._lock:
            self._closed = True
            for held in self._files.values():
                if not held.users:
                    held.raw.close()
            self._files.clear()

    def __len__(self) -> int:
        return len(self._files)

    def _make_room(self) -> None:
        """Close the files longest unused, down to one below the limit; more stay open while all are in use."""
        for file in [file for file, held in self._files.items() if not held.users]:
            if len(self._files) < self._limit:
                return
            self._files.pop(file).raw.close()
