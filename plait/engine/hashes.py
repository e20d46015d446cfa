"""Content hashes of input tensors, taken from the bytes as they stream by.

A tensor's hash is XXH3-128 over the XXH3-128 digests of its chunks of 2^22 elements, so chunks may be read by
any thread in any order.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import xxhash

from plait.checkpoint.types import StoredTensor
from plait.dtypes import DTYPES

__all__ = ["CHUNK", "Key", "Registry", "Streams"]

CHUNK = 1 << 22
"""Elements in one chunk, and in one unit of work."""
Key = tuple[str, str]
"""(file, tensor name)."""


class Registry:
    """The digests of all chunks read so far, shared by all threads."""

    def __init__(self) -> None:
        self._chunks: dict[Key, dict[int, bytes]] = {}
        self._lock = threading.Lock()

    def has(self, key: Key, chunk: int) -> bool:
        """Whether that chunk is known."""
        return chunk in self._chunks.get(key, ())

    def put(self, key: Key, chunk: int, digest: bytes) -> None:
        """Enter a chunk's digest."""
        with self._lock:
            self._chunks.setdefault(key, {})[chunk] = digest

    def tensor(self, tensor: StoredTensor) -> str | None:
        """Return the tensor's hash, or None while a chunk is unknown."""
        chunks = self._chunks.get((tensor.file, tensor.name), {})
        count = max(1, -(-tensor.size // CHUNK))
        if len(chunks) < count:
            return None
        return xxhash.xxh3_128(b"".join(chunks[i] for i in range(count))).hexdigest()


class Streams:
    """One thread's running digests; bytes of a chunk must come in order, and a second reading is ignored."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._open: dict[Key, tuple[int, Any]] = {}
        self.finished: list[tuple[Key, int, bytes]] = []

    def feed(self, tensor: StoredTensor, start: int, raw: Any) -> None:
        """See `raw`, the bytes of the tensor from byte `start` on."""
        key = (tensor.file, tensor.name)
        length = CHUNK * DTYPES[tensor.dtype].size
        done = 0
        while done < len(raw) or (tensor.nbytes == 0 and done == 0):
            position = start + done
            end = min((position // length + 1) * length, tensor.nbytes)
            part = raw[done : done + end - position]
            self._feed_chunk(key, position, part, position // length, length, end)
            done += max(1, len(part))

    def _feed_chunk(self, key: Key, position: int, part: Any, chunk: int, length: int, end: int) -> None:
        if self.registry.has(key, chunk):
            return
        expected, state = self._open.get(key, (-1, None))
        if position == chunk * length:
            state = xxhash.xxh3_128()
        elif position != expected:
            return
        state.update(part)
        if position + len(part) < end:
            self._open[key] = (position + len(part), state)
            return
        self._open.pop(key, None)
        digest = state.digest()
        self.registry.put(key, chunk, digest)
        self.finished.append((key, chunk, digest))

    def take_finished(self) -> Iterable[tuple[Key, int, bytes]]:
        """Return, once, the chunks finished since the last call."""
        finished, self.finished = self.finished, []
        return finished
