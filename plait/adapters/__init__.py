"""The difference of two checkpoints as a LoRA adapter."""

from plait.adapters.report import Extraction, ModuleRank
from plait.adapters.run import extract_adapter

__all__ = ["Extraction", "ModuleRank", "extract_adapter"]
