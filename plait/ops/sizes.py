"""In what pieces sums are taken, which decides their last bits; and all else, which decides nothing."""

from __future__ import annotations

__all__ = ["BLOCK", "LANES", "PIECE"]

BLOCK = 4096
"""Elements; the sums of `gram_blocks`, `abs_sum_blocks` and `sum_blocks` are over such blocks of a tensor."""
LANES = 64
"""Sums within a block: element l goes to lane l mod 64."""
PIECE = 1024
"""Elements that loops written for a method decode at a time, in the first-level cache. Divides BLOCK; LANES divide it."""
