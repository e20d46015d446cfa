"""The pieces of a sentencepiece model (tokenizer.model), read without sentencepiece.

Source: sentencepiece_model.proto: ModelProto has pieces (field 1: text 1, score 2, kind 3), the trainer's settings
(field 2: kind of model 3) and the normaliser's (field 3: whether a space is put before a text 3).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plait.errors import CheckpointError

__all__ = ["Piece", "read_pieces"]

_BPE = 2
_FIXED = {1: 8, 5: 4}


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece; `kind` is numbered as GGUF's kinds of tokens are."""

    text: str
    score: float
    kind: int


def read_pieces(file: Path) -> tuple[list[Piece], bool]:
    """Read all pieces in order, and whether a space is put before a text.

    Raises:
        CheckpointError: it is no sentencepiece model, or none of joined pieces (BPE).
    """
    try:
        fields = list(_fields(file.read_bytes()))
        pieces = [_piece(dict(_fields(value))) for number, value in fields if number == 1]
        trainer = dict(next((_fields(value) for number, value in fields if number == 2), iter(())))
        normaliser = dict(next((_fields(value) for number, value in fields if number == 3), iter(())))
    except (IndexError, ValueError, TypeError, struct.error) as error:
        raise CheckpointError(f"{file}: not a sentencepiece model.") from error
    if not pieces or trainer.get(3, 1) != _BPE:
        raise CheckpointError(f"{file}: not a sentencepiece model of kind BPE; others are not written to GGUF.")
    return pieces, bool(normaliser.get(3, 1))


def _piece(fields: dict[int, Any]) -> Piece:
    (score,) = struct.unpack("<f", fields.get(2, bytes(4)))
    return Piece(bytes(fields[1]).decode(), score, int(fields.get(3, 1)))


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (number, value) of a protocol buffer: whole numbers, else bytes."""
    at = 0
    while at < len(data):
        key, at = _whole(data, at)
        kind = key & 7
        if kind == 0:
            value: Any
            value, at = _whole(data, at)
        else:
            length, at = (_FIXED[kind], at) if kind in _FIXED else _whole(data, at)
            if kind not in {1, 2, 5} or at + length > len(data):
                raise ValueError("no protocol buffer")
            value, at = data[at : at + length], at + length
        yield key >> 3, value


def _whole(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
