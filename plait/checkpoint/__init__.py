"""Checkpoints, read from their headers alone: no weight byte is read, no torch is imported, nothing is run."""

from plait.checkpoint.dequantise import dequantised
from plait.checkpoint.io import FileReader, FileWriter
from plait.checkpoint.names import natural_key
from plait.checkpoint.opening import open_checkpoint
from plait.checkpoint.quantised import quantisation
from plait.checkpoint.side_files import custom_code, side_files
from plait.checkpoint.types import Checkpoint, Derived, StoredTensor
from plait.checkpoint.views import with_names

__all__ = [
    "Checkpoint",
    "Derived",
    "FileReader",
    "FileWriter",
    "StoredTensor",
    "custom_code",
    "dequantised",
    "natural_key",
    "open_checkpoint",
    "quantisation",
    "side_files",
    "with_names",
]
