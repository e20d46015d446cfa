"""A tokenizer as metadata of a GGUF file: from tokenizer.json, or sentencepiece's own file where that is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plait.checkpoint.gguf.splits import split_of
from plait.checkpoint.gguf.tokenizer import BYTE, CONTROL, NORMAL, SPACE, UNKNOWN, UNUSED, USER_DEFINED
from plait.checkpoint.vocabulary import read_json
from plait.errors import CheckpointError
from plait.export.pieces import read_pieces

__all__ = ["Tokens", "tokens_of"]

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_ADDED_SCORE, _FILL_SCORE = -1000.0, -10000.0


@dataclass(frozen=True)
class Tokens:
    """What a GGUF file says of its tokenizer."""

    model: str
    """`gpt2` for byte-level merges, `llama` for sentencepiece's."""
    pre: str
    texts: tuple[str, ...]
    kinds: tuple[int, ...]
    scores: tuple[float, ...] = ()
    merges: tuple[str, ...] = ()
    ids: Mapping[str, int] | None = None
    """Role -> number."""
    begins: bool | None = None
    """Whether a text begins with bos; None where nothing says so."""
    ends: bool | None = None
    prefixed: bool | None = None
    """Whether a text gets a space before it."""


def tokens_of(files: Mapping[str, Path], texts: Mapping[str, str], config: Mapping[str, Any], source: str) -> Tokens:
    """Read the tokenizer among a checkpoint's files; one entry for each row of the embeddings.

    Raises:
        CheckpointError: there is none, it has more tokens than there are rows, or is of a kind that llama.cpp lacks.
    """
    rows = int(config["vocab_size"])
    data = read_json("tokenizer.json", files, texts)
    settings = read_json("special_tokens_map.json", files, texts) | read_json("tokenizer_config.json", files, texts)
    if data:
        made = _from_json(data, rows, source)
    elif "tokenizer.model" in files:
        made = _from_pieces(files["tokenizer.model"], settings, rows, source)
    else:
        raise CheckpointError(
            f"{source}: it has neither tokenizer.json nor tokenizer.model; llama.cpp needs a tokenizer."
        )
    numbers = {text: number for number, text in reversed(list(enumerate(made.texts)))}
    ids = {own: config[key] for key, own in (("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding"))
           if isinstance(config.get(key), int)}  # fmt: skip
    for role, own in _ROLES.items():
        token = settings.get(role)
        token = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(token, str) and token in numbers:
            ids[own] = numbers[token]
    begins, ends = _around(data.get("post_processor"))
    if begins is None and made.model == "gpt2":
        begins = False  # what llama.cpp would do by itself goes by the way of cutting
    return Tokens(
        made.model, made.pre, made.texts, made.kinds, made.scores, made.merges,
        {role: number for role, number in ids.items() if 0 <= number < rows},
        _stated(settings, "add_bos_token", begins), _stated(settings, "add_eos_token", ends), made.prefixed,
    )  # fmt: skip


def _stated(settings: Mapping[str, Any], key: str, otherwise: bool | None) -> bool | None:
    value = settings.get(key)
    return value if isinstance(value, bool) else otherwise


def _around(post: Any) -> tuple[bool | None, bool | None]:
    """Tell whether the last step puts a token before and behind a text."""
    if not isinstance(post, Mapping):
        return None, None
    inner = [_around(one) for one in post.get("processors", [])]
    if post.get("type") == "TemplateProcessing":
        kinds = ["SpecialToken" in piece for piece in post["single"]]
        inner.append((kinds[0], kinds[-1]))
    known = [(a, b) for a, b in inner if a is not None]
    return (any(a for a, _ in known), any(b for _, b in known)) if known else (None, None)


def _from_json(data: Mapping[str, Any], rows: int, source: str) -> Tokens:
    model = data["model"]
    if model.get("type", "BPE") != "BPE" or "merges" not in model:
        raise CheckpointError(f"{source}: a tokenizer of kind {model.get('type')!r} is not written to GGUF, only BPE.")
    added = {int(entry["id"]): entry for entry in data.get("added_tokens") or []}
    vocabulary = {int(number): str(token) for token, number in model["vocab"].items()}
    vocabulary |= {number: str(entry["content"]) for number, entry in added.items()}
    _check_length(max(vocabulary, default=-1) + 1, rows, source)
    merges = [" ".join(merge) if isinstance(merge, list) else str(merge) for merge in model["merges"]]
    split = split_of(data)
    if split is None and not _has_spaces(data):
        raise CheckpointError(
            f"{source}: tokenizer.json cuts text in a way that plait has no llama.cpp name for: "
            f"{json.dumps(data.get('pre_tokenizer'), ensure_ascii=False)[:300]}."
        )
    texts, kinds = [], []
    for number in range(rows):
        token = vocabulary.get(number, f"[PAD{number}]")
        kind = _kind(number, token, vocabulary, added, model if split is None else {})
        kinds.append(kind)
        texts.append(token.replace(SPACE, " ") if kind == USER_DEFINED and split is None else token)
    if split is not None:
        return Tokens("gpt2", split.names[0], tuple(texts), tuple(kinds), merges=tuple(merges))
    scores = _scores(texts, kinds, merges)
    return Tokens("llama", "default", tuple(texts), tuple(kinds), scores, prefixed=_is_prefixed(data))


def _check_length(length: int, rows: int, source: str) -> None:
    if length > rows:
        raise CheckpointError(f"{source}: the tokenizer has {length} tokens, the embeddings {rows} rows.")


def _kind(
    number: int, token: str, vocabulary: Mapping[int, str], added: Mapping[int, Any], model: Mapping[str, Any]
) -> int:
    """Tell a token's kind; `model` is sentencepiece's, or {}."""
    if number not in vocabulary:
        return UNUSED
    if model and token == model.get("unk_token"):
        return UNKNOWN
    if number in added:
        return CONTROL if added[number].get("special") else USER_DEFINED
    return BYTE if model.get("byte_fallback") and _BYTE.fullmatch(token) else NORMAL


def _steps(part: Any) -> list[Mapping[str, Any]]:
    """The steps of a part of tokenizer.json, those of sequences included."""
    if not isinstance(part, Mapping):
        return []
    inner = [*part.get("normalizers", []), *part.get("pretokenizers", [])]
    return [part, *(step for one in inner for step in _steps(one))]


def _has_spaces(data: Mapping[str, Any]) -> bool:
    """Whether spaces become ▁ and nothing else is done to a text, as sentencepiece does by default."""
    steps = [*_steps(data.get("normalizer")), *_steps(data.get("pre_tokenizer"))]
    known = {"Sequence", "Replace", "Prepend", "Metaspace", "Split"}
    replaced = [s for s in steps if s["type"] == "Metaspace" or (s["type"] == "Replace" and s.get("content") == SPACE)]
    # Gemma cuts at spaces, of which its normaliser leaves none
    cuts = [s for s in steps if s["type"] == "Split" and s.get("pattern") != {"String": " "}]
    return bool(replaced) and not cuts and all(step["type"] in known for step in steps)


def _is_prefixed(data: Mapping[str, Any]) -> bool:
    steps = [*_steps(data.get("normalizer")), *_steps(data.get("pre_tokenizer"))]
    schemes = [step.get("prepend_scheme", "always") for step in steps if step["type"] == "Metaspace"]
    return any(step["type"] == "Prepend" for step in steps) or any(scheme != "never" for scheme in schemes)


def _scores(texts: Sequence[str], kinds: Sequence[int], merges: Sequence[str]) -> tuple[float, ...]:
    """Score each piece by its first merge: llama.cpp joins the neighbours whose piece scores best, as merges do."""
    rank: dict[str, int] = {}
    for number, merge in enumerate(merges):
        rank.setdefault(merge.replace(" ", "", 1), number)
    fixed = {UNUSED: _FILL_SCORE, CONTROL: _ADDED_SCORE, USER_DEFINED: _ADDED_SCORE}
    found = (fixed.get(kind, float(-rank.get(text, 0))) for text, kind in zip(texts, kinds, strict=True))
    return tuple(found)


def _from_pieces(file: Path, settings: Mapping[str, Any], rows: int, source: str) -> Tokens:
    pieces, prefixed = read_pieces(file)
    _check_length(len(pieces), rows, source)
    texts = [piece.text for piece in pieces]
    kinds, scores = [piece.kind for piece in pieces], [piece.score for piece in pieces]
    for number in range(len(pieces), rows):
        texts.append(f"[PAD{number}]")
        kinds.append(UNUSED)
        scores.append(_FILL_SCORE)
    for key, entry in (settings.get("added_tokens_decoder") or {}).items():
        number, special = int(key), bool(entry.get("special"))
        _check_length(number + 1, rows, source)
        if kinds[number] in {UNUSED, NORMAL, USER_DEFINED}:
            texts[number] = str(entry["content"]) if special else str(entry["content"]).replace(SPACE, " ")
            kinds[number], scores[number] = CONTROL if special else USER_DEFINED, _ADDED_SCORE
    return Tokens("llama", "default", tuple(texts), tuple(kinds), tuple(scores), prefixed=prefixed)
