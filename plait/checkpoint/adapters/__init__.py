"""Adapters (LoRA and its kin, in peft's files) on a base, seen as checkpoints."""

from plait.checkpoint.adapters.apply import put_on
from plait.checkpoint.adapters.files import is_adapter, read_adapter

__all__ = ["is_adapter", "put_on", "read_adapter"]
