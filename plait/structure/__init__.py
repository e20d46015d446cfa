"""The structure of a model, read off its tensor names, shapes and config: layers, ties, names, meanings."""

from __future__ import annotations

from plait.structure.compare import config_differences
from plait.structure.configs import LayerCount, language_configs, layer_counts
from plait.structure.layers import LayerName, Stack, find_stacks, locate, main_stacks, relocate
from plait.structure.names import Alignment, align
from plait.structure.parts import Component, component, gradient_position
from plait.structure.ties import declared_tie, embedding_and_heads, vocab_biases

__all__ = [
    "Alignment",
    "Component",
    "LayerCount",
    "LayerName",
    "Stack",
    "align",
    "component",
    "config_differences",
    "declared_tie",
    "embedding_and_heads",
    "find_stacks",
    "gradient_position",
    "language_configs",
    "layer_counts",
    "locate",
    "main_stacks",
    "relocate",
    "vocab_biases",
]
