"""Randomness by counting: the number of an element depends on a key and its index, and on nothing else.

Two rounds of a 32-bit mixer (Wellons' public-domain `lowbias32`, 2018) with the two words of a 64-bit
key between them; 32-bit steps fill vector registers on every CPU, and int64 tensors can follow them bit for bit.

    mix(x):           x ^= x >> 16;  x *= 0x7feb352d;  x ^= x >> 15;  x *= 0x846ca68b;  x ^= x >> 16
    bits(key, index): mix(mix(low ^ key_low ^ mix(high)) ^ key_high ^ mix(high ^ 0x9e3779b9))

where low and high are the 32-bit words of the index. (This definition is a promise: it decides the bytes of merges.)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Memory", "Rng", "first_outside", "keep_limits", "rng_key"]


@dataclass(eq=False)
class Memory:
    """What ops found out about tiles of one tensor while it was measured, so that it need not be found again.

    Attributes:
        room: bytes that may be held yet.
        held: by what an op was given, other than the stack: from the tensor's one stack that is the same each time.
    """

    room: int
    held: dict[Any, npt.NDArray[Any]] = field(default_factory=dict)

    def hold(self, about: Any, found: npt.NDArray[Any]) -> None:
        """Hold an array, which must not change afterwards, if there is room.

        >>> memory = Memory(room=100)
        >>> memory.hold("tile 1", np.zeros(80, np.uint8))
        >>> memory.hold("tile 2", np.zeros(80, np.uint8))
        >>> list(memory.held), memory.room
        (['tile 1'], 20)
        """
        if found.nbytes <= self.room:
            self.room -= found.nbytes
            self.held[about] = found


@dataclass(frozen=True, eq=False)
class Rng:
    """Where a tile's random numbers come from.

    Attributes:
        keys: uint64 `[k]`, one per model, from `rng_key`.
        start: index of the tile's first element within its tensor, 0 or more.
        memory: what ops may hold from one pass over the tensor to the next; None where there is but one.
    """

    keys: npt.NDArray[np.uint64]
    start: int = 0
    memory: Memory | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.keys, np.ndarray) or self.keys.dtype != np.uint64 or self.keys.ndim != 1:
            raise TypeError("the keys of an Rng are a uint64 array [k], one key per model; make them with rng_key()")
        if not 0 <= self.start < 2**62:
            raise ValueError(f"an Rng starts at the index of an element, 0 or more, not at {self.start}")

    def at(self, start: int) -> Rng:
        """The same random numbers, for a tile whose first element has index `start`.

        >>> Rng(np.array([7], np.uint64)).at(4096).start
        4096
        """
        return replace(self, start=start)


def rng_key(seed: int, tensor: str, identity: str | bytes) -> int:
    """Make the 64-bit key of one model's random numbers in one tensor.

    Args:
        seed: the recipe's seed, any integer.
        tensor: name of the output tensor.
        identity: what tells the model from the others by its content (a hash), never its path.

    >>> rng_key(0, "lm_head.weight", "a") == rng_key(0, "lm_head.weight", b"a")
    True
    >>> rng_key(0, "lm_head.weight", "a") == rng_key(1, "lm_head.weight", "a")
    False
    """
    told = identity if isinstance(identity, bytes) else identity.encode()
    digest = hashlib.blake2b(digest_size=8, person=b"plait rng 1")
    for part in (str(int(seed)).encode(), tensor.encode(), told):
        digest.update(len(part).to_bytes(8, "little"))  # so that no two triples read the same
        digest.update(part)
    return int.from_bytes(digest.digest(), "little")


def keep_limits(density: Any, models: int) -> npt.NDArray[np.int64]:
    """Return density * 2^32 for each model, the density rounded to float32: an element is kept when its 32 bits lie below.

    Args:
        density: `[k, 1, …, 1]` or any shape of `models` numbers in [0, 1].
        models: k.

    Raises:
        ValueError: a density outside [0, 1], or not one per model.

    >>> keep_limits(np.array([0.0, 0.5, 1.0]), 3).tolist()
    [0, 2147483648, 4294967296]
    """
    each = np.asarray(density, np.float32).astype(np.float64).reshape(-1)
    if each.size != models:
        raise ValueError(f"one density per model: {models} models, but {each.size} densities")
    if not ((each >= 0) & (each <= 1)).all():
        raise ValueError(f"a density is the fraction kept, in [0, 1]; got {each.tolist()}")
    return (each * 2.0**32).astype(np.int64)  # exact, save below 2^-8: the cast rounds down


def first_outside(density: npt.NDArray[Any]) -> float:
    """Return the first density that is none, to be named in an error; there must be one.

    >>> first_outside(np.array([0.5, 1.5, 2.0]))
    1.5
    """
    return float(density[~((density >= 0) & (density <= 1))][0])
