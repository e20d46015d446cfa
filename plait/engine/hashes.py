"""Content hashes of input tensors, taken from the bytes as they stream by.

A tensor's hash is XXH3-128 over the XXH3-128 digests of its chunks of 2^22 elements, so chunks may be read by
any thread in any order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from plait.checkpoint.types import StoredTensor
from plait.dtypes import DTYPES

__all__ = ["CHUNK", "Key", "Registry", "Streams", "content_identity", "sample_spans"]

CHUNK = 1 << 22
"""Elements in one chunk, and in one unit of work."""
Key = tuple[str, str]
"""`StoredTensor.key`: (file or files, tensor name)."""


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
        chunks = self._chunks.get(tensor.key, {})
        count = max(1, -(-tensor.size // CHUNK))
        if len(chunks) < count:
            return None
        return xxhash.xxh3_128(b"".join(chunks[i] for i in range(count))).hexdigest()


class Streams:
    """One thread's running digests. Bytes of a chunk must come in order; those that came before are passed over."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._open: dict[Key, dict[int, tuple[int, Any]]] = {}
        self.finished: list[tuple[Key, int, bytes]] = []

    def feed(self, tensor: StoredTensor, start: int, raw: Any) -> None:
        """See `raw`, the bytes of the tensor from byte `start` on."""
        key = tensor.key
        length = CHUNK * DTYPES[tensor.dtype].size
        done = 0
        while done < len(raw) or (tensor.nbytes == 0 and done == 0):
            position = start + done
            end = min((position // length + 1) * length, tensor.nbytes)
            part = raw[done : done + end - position]
            self._feed_chunk(key, position, part, position // length, position // length * length, end)
            done += max(1, len(part))

    def _feed_chunk(self, key: Key, position: int, part: Any, chunk: int, begin: int, end: int) -> None:
        if self.registry.has(key, chunk):
            return
        opened = self._open.setdefault(key, {})
        seen, state = opened.get(chunk, (begin, None))
        if position > seen or (position + len(part) <= seen and end > begin):
            return  # a gap, which a later reading fills, or nothing new
        state = state or xxhash.xxh3_128()
        state.update(part[seen - position :])
        seen = position + len(part)
        if seen < end:
            opened[chunk] = (seen, state)
            return
        opened.pop(chunk, None)
        digest = state.digest()
        self.registry.put(key, chunk, digest)
        self.finished.append((key, chunk, digest))

    def take_finished(self) -> Iterable[tuple[Key, int, bytes]]:
        """Return, once, the chunks finished since the last call."""
        finished, self.finished = self.finished, []
        return finished


def sample_spans(size: int, wanted: int, segment: int = 1024) -> Sequence[tuple[int, int]]:
    """Spread `wanted` elements (at least one) evenly over a tensor, as runs of at most about `segment`.

    >>> sample_spans(10_000, 2048)
    [(0, 1024), (8976, 10000)]
    >>> sample_spans(10_000, 100)
    [(4950, 5050)]
    """
    count = max(1, wanted // segment)
    run = max(1, wanted // count)
    if size <= count * run:
        return [(0, size)]
    if count == 1:
        return [((size - run) // 2, (size - run) // 2 + run)]
    begins = [i * (size - run) // (count - 1) for i in range(count)]
    return [(begin, begin + run) for begin in begins]


def content_identity(
    dtype: str, shape: tuple[int, ...], size: int, read: Callable[[int, int], npt.NDArray[np.uint8]]
) -> bytes:
    """Tell a model's tensor from another's by content: a hash of its type, shape and up to 16 spread pages.

    `read(start, stop)` returns the bytes of elements [start, stop). (This decides masks, and so the bytes of merges.)
    """
    state = xxhash.xxh3_128(repr((dtype, shape)).encode())
    for start, stop in sample_spans(size, 16 * 2048, 2048):
        state.update(read(start, stop).data)
    return state.digest()
