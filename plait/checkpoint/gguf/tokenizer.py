"""tokenizer.json as a GGUF file's metadata tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from plait.checkpoint.gguf.header import Header
from plait.checkpoint.gguf.splits import split_named

__all__ = ["BYTE", "CONTROL", "NORMAL", "SPACE", "UNKNOWN", "UNUSED", "USER_DEFINED", "tokenizer_files"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Kinds of tokens, as `tokenizer.ggml.token_type` has them."""
SPACE = "▁"  # what sentencepiece writes for a space
_OUT = "Name another model's with `tokenizer_source`, or put the original's tokenizer files beside the file."
_ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


def tokenizer_files(header: Header) -> tuple[dict[str, str], str]:
    """Make tokenizer.json and tokenizer_config.json, with the chat template; none where the metadata does not suffice.

    Returns: the files by name, and a sentence on them.
    """
    values = header.values
    tokens, kind = values.get("tokenizer.ggml.tokens"), values.get("tokenizer.ggml.model")
    if not isinstance(tokens, list) or kind not in _MODELS:
        return {}, f"its tokenizer is of kind {kind!r}, which is not made from metadata. {_OUT}"
    if any(not _is_text(token) for token in tokens) or len(set(tokens)) < len(tokens):
        return {}, f"its tokens are not valid UTF-8, or not all different. {_OUT}"
    kinds = [int(one) for one in values.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))]
    made, why = _MODELS[kind](header, tokens, kinds)
    if made is None:
        return {}, f"its tokenizer {why}. {_OUT}"
    added = [_added(number, token, kinds[number]) for number, token in enumerate(tokens) if _is_added(kinds[number])]
    data = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **made}
    data["post_processor"] = _post(header, tokens)
    files = {"tokenizer.json": _json(data), "tokenizer_config.json": _json(_config(header, tokens))}
    return files, f"the tokenizer, of {len(_numbered(tokens, kinds))} tokens, is made from the metadata."


def _is_text(token: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in token)


def _is_added(kind: int) -> bool:
    return kind in {CONTROL, USER_DEFINED}


def _added(number: int, token: str, kind: int) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": token, **flags, "special": kind == CONTROL}


def _numbered(tokens: Sequence[str], kinds: Sequence[int]) -> dict[str, int]:
    """Give every token its number, but those that only fill up rows."""
    return {
        token: number
        for number, token in enumerate(tokens)
        if not (kinds[number] == UNUSED and token == f"[PAD{number}]")
    }


def _byte_level(header: Header, tokens: Sequence[str], kinds: Sequence[int]) -> tuple[dict[str, Any] | None, str]:
    name = header.values.get("tokenizer.ggml.pre", "default")
    split = split_named(str(name))
    merges = header.values.get("tokenizer.ggml.merges")
    if split is None or not isinstance(merges, list):
        return None, f"cuts text in a way ({name!r}) that is not known" if split is None else "has no merges"
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": split.whole_words,
        "vocab": _numbered(tokens, kinds), "merges": [merge.split(" ", 1) for merge in merges],
    }  # fmt: skip
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    normalizer = {"type": "NFC"} if split.nfc else None
    return {"normalizer": normalizer, "pre_tokenizer": split.steps, "decoder": decoder, "model": model}, ""


def _pieces(header: Header, tokens: Sequence[str], kinds: Sequence[int]) -> tuple[dict[str, Any] | None, str]:
    """Sentencepiece's BPE: it joins the two neighbours whose piece scores best; merges in that order do the same."""
    scores = header.values.get("tokenizer.ggml.scores")
    if scores is None or len(scores) != len(tokens):
        return None, "has no scores"
    vocabulary = _numbered(tokens, kinds)
    unknown = next((token for token, kind in zip(tokens, kinds, strict=True) if kind == UNKNOWN), None)
    model = {
        "type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": BYTE in kinds, "ignore_merges": False,
        "vocab": vocabulary, "merges": _merges(vocabulary, kinds, scores.tolist()),
    }  # fmt: skip
    prefixed = bool(header.values.get("tokenizer.ggml.add_space_prefix", True))
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    before = [{"type": "Prepend", "prepend": SPACE}] if prefixed else []
    after: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    ]  # fmt: skip
    after += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefixed else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*before, replaced]}, "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": after}, "model": model,
    }, ""  # fmt: skip


def _merges(vocabulary: Mapping[str, int], kinds: Sequence[int], scores: Sequence[float]) -> list[list[str]]:
    """Every way to join two pieces into a third, the best-scored third first."""
    normal = {token: number for token, number in vocabulary.items() if kinds[number] in {NORMAL, UNUSED}}
    found = []
    for piece, number in normal.items():
        for cut in range(1, len(piece)):
            left, right = normal.get(piece[:cut]), normal.get(piece[cut:])
            if left is not None and right is not None:
                found.append((-scores[number], number, left, right, piece[:cut], piece[cut:]))
    return [[left, right] for *_, left, right in sorted(found)]


_MODELS = {"gpt2": _byte_level, "llama": _pieces}


def _role(header: Header, role: str, tokens: Sequence[str]) -> str | None:
    number = header.values.get(f"tokenizer.ggml.{role}_token_id")
    return tokens[number] if isinstance(number, int) and 0 <= number < len(tokens) else None


def _begins(header: Header) -> bool:
    """Whether a text begins with the token for that: as stated, or for sentencepiece."""
    return bool(header.values.get("tokenizer.ggml.add_bos_token", header.values["tokenizer.ggml.model"] == "llama"))


def _post(header: Header, tokens: Sequence[str]) -> dict[str, Any] | None:
    """The step that puts begin and end around a text."""
    first = _role(header, "bos", tokens) if _begins(header) else None
    last = _role(header, "eos", tokens) if header.values.get("tokenizer.ggml.add_eos_token") else None
    if not first and not last:
        return None

    def around(name: str, kind: int) -> list[dict[str, Any]]:
        special = [[{"SpecialToken": {"id": token, "type_id": kind}}] if token else [] for token in (first, last)]
        return [*special[0], {"Sequence": {"id": name, "type_id": kind}}, *special[1]]

    numbers = {token: tokens.index(token) for token in (first, last) if token}
    return {
        "type": "TemplateProcessing", "single": around("A", 0), "pair": [*around("A", 0), *around("B", 1)],
        "special_tokens": {token: {"id": token, "ids": [i], "tokens": [token]} for token, i in numbers.items()},
    }  # fmt: skip


def _config(header: Header, tokens: Sequence[str]) -> dict[str, Any]:
    roles = {own: _role(header, role, tokens) for role, own in _ROLES.items()}
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {own: token for own, token in roles.items() if token is not None}
    length = header.values.get(f"{header.values.get('general.architecture')}.context_length")
    config |= {"model_max_length": length} if isinstance(length, int) else {}
    template = header.values.get("tokenizer.chat_template")
    return config | ({"chat_template": template} if isinstance(template, str) else {})


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
