"""The output's tokenizer: one model's own files, with tokens added to them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plait.checkpoint.vocabulary import Vocabulary, read_json
from plait.errors import Fault, Where

__all__ = ["Added", "TokenizerFiles", "add_tokens", "renumbered"]

_TRUE_UNIONS = ("WordLevel", "WordPiece")
"""Models that use any piece that their list has, so that pieces of another list are pieces here too."""
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
_HOLDS_IDS = re.compile(r"(^|_)(token_ids?|token_index|suppress_tokens|bad_words_ids)$")


@dataclass(frozen=True)
class Added:
    """A token that the output's tokenizer gets: its number, and its entry in the tokenizer that it comes from."""

    token: str
    number: int
    entry: Mapping[str, Any] | None
    """None for a piece of that tokenizer's model, or for a token that only the recipe names."""
    type: str = ""
    """What kind of tokenizer a piece comes from."""


@dataclass(frozen=True)
class TokenizerFiles:
    """Small files to copy and to write, by name, and what is to be said of them."""

    files: Mapping[str, Path]
    texts: Mapping[str, str]
    vocabulary: Vocabulary
    notes: tuple[str, ...] = ()


def add_tokens(
    own: Vocabulary, files: Mapping[str, Path], texts: Mapping[str, str], added: Sequence[Added], where: Where
) -> tuple[TokenizerFiles | None, Fault | None]:
    """Add tokens to a tokenizer, keeping its model, merges, normaliser and every number.

    Pieces of another word list are pieces here too. Pieces of BPE and Unigram models cannot be: their merges and
    scores mean nothing among others; they become added tokens, matched as they are written.
    """
    if not added:
        return TokenizerFiles(files, texts, own), None
    if own.file != "tokenizer.json":
        message = (
            f"tokenizer: {len(added)} tokens would be added, but the tokenizer to add them to has no tokenizer.json."
        )
        return None, Fault(message, where, "Save it as a fast tokenizer first, or take another tokenizer_source.")
    data = read_json("tokenizer.json", files, texts)
    wanted = {one.token: one.number for one in added}
    for everywhere in (False, True):
        made = _with_tokens(data, own, added, everywhere=everywhere)
        if _numbers(made, wanted) == wanted:
            return _files(own, files, texts, made, added), None
    message = (
        f"tokenizer: {len(added)} tokens cannot be added under free numbers: the tokenizer has holes among its own."
    )
    return None, Fault(message, where, "Take tokenizer_source: base, or mend that tokenizer.")


def _with_tokens(
    data: Mapping[str, Any], own: Vocabulary, added: Sequence[Added], *, everywhere: bool
) -> dict[str, Any]:
    """Return tokenizer.json with the tokens; `everywhere`: in the model's list, too, which alone keeps any number."""
    made: dict[str, Any] = json.loads(json.dumps(data))
    vocab = made["model"]["vocab"]
    entries = made.setdefault("added_tokens", None) or []
    for one in added:
        piece = one.entry is None and own.type in _TRUE_UNIONS and one.type == own.type
        if isinstance(vocab, dict) and (piece or everywhere):
            vocab[one.token] = one.number
        if not piece:
            entry = _FLAGS if one.entry is None else {key: one.entry.get(key, flag) for key, flag in _FLAGS.items()}
            entries.append({"id": one.number, "content": one.token, **entry})
    made["added_tokens"] = sorted(entries, key=lambda entry: int(entry["id"]))
    return made


def _numbers(made: Mapping[str, Any], wanted: Mapping[str, int]) -> dict[str, int]:
    """The numbers that the tokenizer gives these tokens once it is loaded."""
    from tokenizers import Tokenizer  # 50 ms, and few recipes need it

    try:
        found = Tokenizer.from_str(json.dumps(made)).get_vocab(with_added_tokens=True)
    except Exception:  # noqa: BLE001 - the library raises nothing narrower
        return {}
    return {token: found.get(token, -1) for token in wanted}


def _files(
    own: Vocabulary,
    files: Mapping[str, Path],
    texts: Mapping[str, str],
    made: Mapping[str, Any],
    added: Sequence[Added],
) -> TokenizerFiles:
    entries = {str(entry["content"]): entry for entry in made["added_tokens"]}
    written = {**texts, "tokenizer.json": _json(made)}
    others = {one.token: one.number for one in added if one.token in entries}
    config = read_json("tokenizer_config.json", files, texts)
    if isinstance(config.get("added_tokens_decoder"), dict):
        more = {
            str(number): {key: value for key, value in entries[token].items() if key != "id"}
            for token, number in others.items()
        }
        written["tokenizer_config.json"] = _json(
            config | {"added_tokens_decoder": config["added_tokens_decoder"] | more}
        )
    if "added_tokens.json" in files or "tokenizer.model" in files or "vocab.json" in files:
        written["added_tokens.json"] = _json(read_json("added_tokens.json", files, texts) | others)
    left = {name: path for name, path in files.items() if name not in written and name != "vocab.txt"}
    kinds = {token: "special" if entries[token].get("special") else "added" for token in others}
    vocabulary = replace(
        own,
        ids={**own.ids, **{one.token: one.number for one in added}},
        kinds={**own.kinds, **kinds},
        entries={**own.entries, **{token: entries[token] for token in others}},
    )
    return TokenizerFiles(left, written, vocabulary, tuple(_notes(own, files, added, entries)))


def _notes(own: Vocabulary, files: Mapping[str, Path], added: Sequence[Added], entries: Mapping[str, Any]) -> list[str]:
    notes = []
    pieces = [one.token for one in added if one.entry is None and one.token in entries]
    if pieces:
        notes.append(
            f"tokenizer: {len(pieces)} pieces of other models (such as {pieces[0]!r}) become added tokens, matched as "
            f"written: the output keeps the {own.type or 'tokenizer'} model of one input, and cannot join theirs to it."
        )
    if "vocab.txt" in files:
        notes.append("tokenizer: vocab.txt is left out, as tokenizer.json has more tokens than it.")
    return notes


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def renumbered(
    config: Mapping[str, Any], old: Vocabulary, new: Vocabulary
) -> tuple[dict[str, Any], list[tuple[str, Any, Any]]]:
    """Give every token number that a config states (`eos_token_id` and the like) its token's number in `new`.

    A token that `new` lacks is left out, unless its role (`eos_token`) is stated by `new`: then that token is meant.
    Returns the new config, and (key, before, after) for what has changed.
    """
    tokens = {number: token for token, number in old.ids.items()}
    changes: list[tuple[str, Any, Any]] = []

    def number(key: str, value: Any) -> Any:
        if isinstance(value, list):
            found = [number(key, one) for one in value]
            return [one for one in found if one is not None]
        if isinstance(value, bool) or not isinstance(value, int) or value not in tokens:
            return value
        token = tokens[value]
        if token not in new.ids:
            token = new.roles.get(key.removesuffix("s").removesuffix("_id"), "")
        return new.ids.get(token)

    def visit(nested: Mapping[str, Any], path: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in nested.items():
            if isinstance(value, dict):
                made[key] = visit(value, f"{path}{key}.")
                continue
            made[key] = number(key, value) if _HOLDS_IDS.search(key) else value
            if made[key] != value:
                changes.append((path + key, value, made[key]))
        return made

    return visit(config, ""), changes
