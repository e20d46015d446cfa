"""Mixtures of experts: how a checkpoint stores them, the same experts in another layout, and in another order."""

from plait.checkpoint.experts.arranged import needs_rearranging, rearranged
from plait.checkpoint.experts.banks import Bank, Key, find_banks
from plait.checkpoint.experts.matching import Matching, Slabs, matched

__all__ = ["Bank", "Key", "Matching", "Slabs", "find_banks", "matched", "needs_rearranging", "rearranged"]
