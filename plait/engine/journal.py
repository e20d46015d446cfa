"""The journal of a merge in progress: which units are written, so that an interrupted merge goes on.

One JSON line a finished unit, appended whole; a line cut short by a crash is not read. Each line carries the
digest of the bytes written, so a unit is trusted only when the file still has them.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from plait.engine.hashes import Key, Registry
from plait.errors import OutputError

try:
    import fcntl
except ImportError:  # pragma: no cover - not on Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on

__all__ = ["JOURNAL_NAME", "Journal"]

JOURNAL_NAME = "journal.jsonl"


class Journal:
    """Opened in the folder in which a merge is being made; holds it against a second process."""

    def __init__(self, folder: Path, fingerprint: str, *, fresh: bool = False, allow_nonfinite: bool = False) -> None:
        """Read what an earlier run noted, unless it was of another plan, or allowed NaN where this one does not.

        Raises:
            OutputError: another process is at work in the folder, or the journal cannot be written.
        """
        self.path = folder / JOURNAL_NAME
        try:
            self._file = self.path.open("a+b")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}.") from error
        self._hold()
        self.done: dict[tuple[int, int], str] = {}
        """(placed index, unit) -> hex digest of the bytes written."""
        self.chunks: list[tuple[Key, int, bytes]] = []
        self.differing: set[str] = set()
        """Copied tensors that were found not to be the same in all inputs."""
        try:
            self.same = self._read(fingerprint, fresh=fresh, allow_nonfinite=allow_nonfinite)
            """Whether the journal is of this very plan; when not, it was emptied."""
        except BaseException:
            self._file.close()
            raise

    def _hold(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            folder = self.path.parent
            raise OutputError(
                f"{folder} is being written by another merge. Wait for it, or choose another folder."
            ) from None
        except OSError:
            return  # a file system without locks

    def _read(self, fingerprint: str, *, fresh: bool, allow_nonfinite: bool) -> bool:
        self._file.seek(0)
        lines = self._file.read().split(b"\n")[:-1]
        entries = [_parsed(line) for line in lines]
        nonfinite = any("nonfinite" in entry for entry in entries)
        same = bool(entries) and entries[0].get("plan") == fingerprint
        if fresh or not same or (nonfinite and not allow_nonfinite):
            self._file.seek(0)
            self._file.truncate()
            self._append({"plan": fingerprint})
            same, nonfinite, entries = False, False, []
        else:
            self._file.truncate(sum(len(line) + 1 for line in lines))
        for entry in entries[1:]:
            self._take(entry)
        if allow_nonfinite and not nonfinite:
            self._append({"nonfinite": True})
        return same

    def _take(self, entry: dict[str, Any]) -> None:
        """Believe a line, if it is whole."""
        try:
            placed, unit = entry["unit"]
            chunks = [((str(f), str(n)), int(c), bytes.fromhex(d)) for f, n, c, d in entry["in"]]
            self.done[int(placed), int(unit)] = str(entry["out"])
            self.differing.update(entry.get("differing", ()))
        except (KeyError, TypeError, ValueError):
            return
        self.chunks += chunks

    def restore(self, registry: Registry) -> None:
        """Enter the input chunks that finished units had read."""
        for key, chunk, digest in self.chunks:
            registry.put(key, chunk, digest)

    def record(
        self, placed: int, unit: int, out: str, chunks: Iterable[tuple[Key, int, bytes]], differing: Sequence[str] = ()
    ) -> None:
        """Note a finished unit: its bytes are in the file. Any thread may call this."""
        read = [[*key, chunk, digest.hex()] for key, chunk, digest in chunks]
        more = {"differing": list(differing)} if differing else {}
        self._append({"unit": [placed, unit], "out": out, "in": read, **more})

    def _append(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        fd = self._file.fileno()
        try:
            reason = "" if os.write(fd, line) == len(line) else os.strerror(errno.ENOSPC)
            if reason:
                os.write(fd, b"\n")  # what follows must not continue this line
        except OSError as error:
            reason = error.strerror or str(error)
        if reason:
            hint = "Once that is mended, run it again: it goes on where it stopped."
            raise OutputError(f"{self.path}: cannot be written: {reason}. {hint}")

    def close(self) -> None:
        """Let go of the folder."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
