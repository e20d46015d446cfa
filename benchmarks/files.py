"""The files of weights in a folder."""

from __future__ import annotations

from pathlib import Path

__all__ = ["warm", "weights"]


def weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def warm(folders: list[Path]) -> None:
    """Read all weights once, so that every contender finds them in the page cache."""
    buffer = bytearray(1 << 22)
    for folder in folders:
        for file in weights(folder):
            with file.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass
