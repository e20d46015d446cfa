"""Checkpoints named by hub id (`org/name`): fetched by huggingface_hub into its cache, or found there."""

from __future__ import annotations

import re
from pathlib import Path

from plait.errors import CheckpointError

__all__ = ["fetch", "is_hub_id"]

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_SIDE = ["README.md", "*.json", "*.txt", "*.model", "*.model.v*", "*.jinja", "*.tiktoken", "*.spm", "*.py"]
_SAFE = ["*.safetensors", *_SIDE]
_TORCH = ["pytorch_model*.bin", "adapter_model.bin", *_SIDE]
_IGNORE = ["*/*.safetensors", "*/*.bin", "consolidated*.safetensors", "onnx/*", "openvino/*", "*/*.py"]


def is_hub_id(reference: str) -> bool:
    """Whether `reference` has the form of a hub id.

    >>> is_hub_id("org/name"), is_hub_id("./folder"), is_hub_id("a/b/c")
    (True, False, False)
    """
    return _HUB_ID.fullmatch(reference) is not None and ".." not in reference and "--" not in reference


def fetch(reference: str, revision: str | None) -> Path:
    """Fetch weights, config and tokenizer of a hub id; returns the folder in huggingface_hub's cache.

    Safetensors where the repository has any, else torch's files, never both. Environment: HF_HUB_OFFLINE, HF_HOME
    and all others that huggingface_hub knows.

    Raises:
        CheckpointError: huggingface_hub could not get it; with its reason.
    """
    import huggingface_hub  # half a second, for hub ids alone

    try:
        for patterns in (_SAFE, _TORCH):  # never both: they are the same weights
            found = huggingface_hub.snapshot_download(
                reference, revision=revision, allow_patterns=patterns, ignore_patterns=_IGNORE
            )
            folder = Path(found)
            if any(file.suffix in {".safetensors", ".bin"} for file in folder.iterdir()):
                break
    except Exception as error:
        raise CheckpointError(f"the hub gave: {_first_line(error)}") from error
    return folder


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}" + (f" ({lines[0].rstrip('.')})" if lines else "")
