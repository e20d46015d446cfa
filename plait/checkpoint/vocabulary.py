"""Which tokens a model's tokenizer has, by which numbers and of which kind: read from its files, nothing is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["VOCABULARY_FILES", "Vocabulary", "read_json", "read_vocabulary", "unreadable"]

VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "vocab.txt")
"""The files that can be read, the one that counts first."""
_UNREADABLE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tekken.json")
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class Vocabulary:
    """One tokenizer's tokens."""

    file: str
    """The file that they were read from."""
    ids: Mapping[str, int]
    """Token -> number, in the order of the numbers."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Token -> "special" or "added", for those that are; all others are pieces of the tokenizer's model."""
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Token -> its entry among tokenizer.json's `added_tokens`."""
    type: str = ""
    """BPE, Unigram, WordPiece, WordLevel; "" where the files do not say."""
    byte_level: bool = False
    """Whether letters beyond ASCII in a piece stand for bytes, as in GPT-2's tokenizer."""
    byte_fallback: bool = False
    """Whether pieces such as <0x0A> stand for bytes."""
    roles: Mapping[str, str] = field(default_factory=dict)
    """bos_token and the like -> token, as tokenizer_config.json and special_tokens_map.json have it."""

    @property
    def length(self) -> int:
        """The least number of rows that gives every token one: the greatest number and one more."""
        return max(self.ids.values(), default=-1) + 1

    def kind(self, token: str) -> str:
        """Return "special", "added" or "piece"."""
        return self.kinds.get(token, "piece")

    def means(self, token: str) -> str:
        """Tell what text the token stands for, as far as its letters do not: two tokens of one string may differ."""
        if token in self.kinds:
            return "text"
        if self.byte_level:
            return "text" if token.isascii() else "byte letters"
        is_byte = self.byte_fallback and len(token) == 6 and token.startswith("<0x") and token.endswith(">")
        return "byte" if is_byte else "text"


def read_vocabulary(files: Mapping[str, Path], texts: Mapping[str, str] | None = None) -> Vocabulary | None:
    """Read a tokenizer's vocabulary, or None where no file is there that can be read.

    Args:
        files: name -> file, as `plait.checkpoint.side_files` finds them.
        texts: files that are not written yet, by name; they go before `files`.
    """
    roles = _roles(files, texts)
    for name in VOCABULARY_FILES:
        try:
            text = _text(name, files, texts)
            if text is None:
                continue
            if name == "tokenizer.json":
                return _of_tokenizer_json(json.loads(text), roles)
            return _of_list(name, text, files, texts, roles)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
    return None


def unreadable(files: Mapping[str, Path]) -> tuple[str, ...]:
    """Name the tokenizer files that are there but are not read."""
    return tuple(name for name in _UNREADABLE if name in files)


def read_json(name: str, files: Mapping[str, Path], texts: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Read a small file that holds a JSON object; {} where it is missing or is none."""
    try:
        value = json.loads(_text(name, files, texts) or "{}")
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(name: str, files: Mapping[str, Path], texts: Mapping[str, str] | None) -> str | None:
    if texts and name in texts:
        return texts[name]
    return files[name].read_text(encoding="utf-8") if name in files else None


def _in_order(ids: Mapping[str, Any]) -> dict[str, int]:
    numbers = {str(token): int(number) for token, number in ids.items()}
    return {token: numbers[token] for token in sorted(numbers, key=numbers.__getitem__)}


def _of_tokenizer_json(data: Mapping[str, Any], roles: Mapping[str, str]) -> Vocabulary:
    model = data["model"]
    vocab = model["vocab"]
    ids = {str(token): i for i, (token, *_) in enumerate(vocab)} if isinstance(vocab, list) else dict(vocab)
    added = {str(entry["content"]): entry for entry in data.get("added_tokens") or []}
    ids |= {token: int(entry["id"]) for token, entry in added.items()}
    return Vocabulary(
        "tokenizer.json",
        _in_order(ids),
        {token: "special" if entry.get("special") else "added" for token, entry in added.items()},
        added,
        str(model.get("type") or _guessed(model)),
        _has_byte_level(data.get("pre_tokenizer")) or _has_byte_level(data.get("decoder")),
        bool(model.get("byte_fallback")),
        roles,
    )


def _guessed(model: Mapping[str, Any]) -> str:
    if "merges" in model:
        return "BPE"
    if isinstance(model["vocab"], list):
        return "Unigram"
    return "WordPiece" if "continuing_subword_prefix" in model else "WordLevel"


def _has_byte_level(part: Any) -> bool:
    if isinstance(part, Mapping):
        return part.get("type") == "ByteLevel" or any(_has_byte_level(inner) for inner in part.values())
    return isinstance(part, list) and any(_has_byte_level(inner) for inner in part)


def _of_list(
    name: str, text: str, files: Mapping[str, Path], texts: Mapping[str, str] | None, roles: Mapping[str, str]
) -> Vocabulary:
    if name == "vocab.json":
        ids, kind = dict(json.loads(text)), "BPE" if "merges.txt" in files else ""
    else:
        lines = text.split("\n")
        ids = {token: i for i, token in enumerate(lines) if token or i < len(lines) - 1}
        kind = "WordPiece"
    extra = {str(token): int(number) for token, number in read_json("added_tokens.json", files, texts).items()}
    kinds = dict.fromkeys(extra, "added") | {token: "special" for token in roles.values() if token in ids | extra}
    return Vocabulary(name, _in_order(ids | extra), kinds, {}, kind, name == "vocab.json", roles=roles)


def _roles(files: Mapping[str, Path], texts: Mapping[str, str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        data = read_json(name, files, texts)
        for role in _ROLES:
            value = data.get(role)
            value = value.get("content") if isinstance(value, Mapping) else value
            if isinstance(value, str):
                found[role] = value
    return found
