"""GGUF files seen as checkpoints of transformers: names, shapes and weights as those have them."""

from plait.checkpoint.gguf.files import gguf_in
from plait.checkpoint.gguf.opening import open_gguf

__all__ = ["gguf_in", "open_gguf"]
