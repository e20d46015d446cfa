"""In what pieces sums are taken, which decides their last bits."""

from __future__ import annotations

__all__ = ["BLOCK", "LANES"]

BLOCK = 4096
"""Elements; the sums of `gram_blocks`, `abs_sum_blocks` and `sum_blocks` are over such blocks of a tensor."""
LANES = 64
"""Sums within a block: element l goes to lane l mod 64."""
