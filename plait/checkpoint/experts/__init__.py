"""Mixtures of experts: how a checkpoint stores them, the same experts in another layout, and in another order."""

from plait.checkpoint.experts.arranged import needs_rearranging, rearranged
from plait.checkpoint.experts.banks import Bank, find_banks

__all__ = ["Bank", "find_banks", "needs_rearranging", "rearranged"]
