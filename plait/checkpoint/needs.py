"""How much memory a tensor takes while it is made, if no file holds it row by row."""

from __future__ import annotations

from plait.checkpoint.types import StoredTensor

__all__ = ["made_bytes"]


def made_bytes(tensor: StoredTensor, count: int) -> tuple[int, int]:
    """Return the bytes at work in a thread while it makes `count` elements, and those that it keeps for the next ones.

    What is made says so itself: `needs`, with all that its parts need, or `room` without that.
    """
    made = tensor.derived
    if made is None:
        return (0, 0) if tensor.strides is None else (tensor.reach, tensor.nbytes)
    count = min(count, tensor.size)
    if (needs := getattr(made, "needs", None)) is not None:
        work, kept = needs(count)
        return int(work), int(kept)
    parts = [made_bytes(part, count) for part in made.parts]
    if (room := getattr(made, "room", None)) is not None:
        return int(room) + max(work for work, _ in parts), sum(kept for _, kept in parts)
    chief, *others = made.parts
    own = 8 * min(count, chief.size) + 4 * sum(part.size for part in others)
    return own + max(work for work, _ in parts), sum(kept for _, kept in parts)
