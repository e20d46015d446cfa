"""The journal of a merge in progress: which units are written, so that an interrupted merge goes on.

One JSON line a finished unit, appended whole; a line cut short by a crash is not read. Each line carries the
digest of the bytes written, so a unit is trusted only when the file still has them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from plait.engine.hashes import Key, Registry
from plait.errors import OutputError

try:
    import fcntl
except ImportError:  # pragma: no cover - not on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Journal"]


class Journal:
    """Opened on the folder in which a merge is being made; holds it against a second process."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self._file = path.open("a+b")
        self._hold()
        self.done: dict[tuple[int, int], str] = {}
        """(placed index, unit) -> hex digest of the bytes written."""
        self.chunks: list[tuple[Key, int, bytes]] = []
        self.same = self._read(fingerprint)
        """Whether the journal is of this very plan; when not, it was emptied."""

    def _hold(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise OutputError(f"{self.path.parent} is being written by another merge. Wait for it, or choose another folder.") from None

    def _read(self, fingerprint: str) -> bool:
        self._file.seek(0)
        lines = self._file.read().split(b"\n")[:-1]
        if lines and _parsed(lines[0]).get("plan") == fingerprint:
            for line in lines[1:]:
                entry = _parsed(line)
                if "unit" in entry:
                    self.done[tuple(entry["unit"])] = entry["out"]
                    self.chunks += [((f, n), c, bytes.fromhex(d)) for f, n, c, d in entry["in"]]
            self._file.truncate(sum(len(line) + 1 for line in lines))
            return True
        self._file.seek(0)
        self._file.truncate()
        self._append({"plan": fingerprint})
        return False

    def restore(self, registry: Registry) -> None:
        """Enter the input chunks that finished units had read."""
        for key, chunk, digest in self.chunks:
            registry.put(key, chunk, digest)

    def record(self, placed: int, unit: int, out: str, chunks: Iterable[tuple[Key, int, bytes]]) -> None:
        """Note a finished unit: its bytes are in the file."""
        self._append({"unit": [placed, unit], "out": out, "in": [[*key, chunk, digest.hex()] for key, chunk, digest in chunks]})

    def _append(self, entry: dict[str, Any]) -> None:
        os.write(self._file.fileno(), json.dumps(entry, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """Let go of the folder."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
