"""The small files beside the weights, without which a model cannot be used."""

from __future__ import annotations

from pathlib import Path

from plait.checkpoint.types import Checkpoint

__all__ = ["MODEL", "SMALL", "custom_code", "side_files"]

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spm.model",
    "source.spm",
    "target.spm",
    "bpe.codes",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
)
MODEL = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "image_processor_config.json",
)
_PATTERNS = (
    "tokenizer.model.v*",
    "*.tiktoken",
    "tiktoken.model",
    "additional_chat_templates/*.jinja",
    "chat_templates/*.jinja",
)

SMALL = (
    "config.json",
    "adapter_config.json",
    "*.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "README.md",
    *TOKENIZER,
    *MODEL,
    *_PATTERNS,
)
"""What is fetched of a hub's repository to plan: globs, one without a `/` for the top folder alone."""


def side_files(checkpoint: Checkpoint) -> dict[str, Path]:
    """Find tokenizer, chat templates, generation and processor configs: path within the folder -> file.

    In a fixed order. config.json is not among them, nor are the weights, nor code (see `custom_code`).
    """
    folder = _folder(checkpoint)
    found = {name: folder / name for name in (*TOKENIZER, *MODEL) if (folder / name).is_file()}
    for pattern in _PATTERNS:
        for file in sorted(folder.glob(pattern)):
            if file.is_file():
                found.setdefault(file.relative_to(folder).as_posix(), file)
    return found


def custom_code(checkpoint: Checkpoint) -> dict[str, Path]:
    """Find the model's own Python files (trust_remote_code); plait neither runs nor copies them unasked."""
    folder = _folder(checkpoint)
    return {file.name: file for file in sorted(folder.glob("*.py")) if file.is_file()}


def _folder(checkpoint: Checkpoint) -> Path:
    return checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
