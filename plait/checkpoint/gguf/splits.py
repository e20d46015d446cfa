"""How byte-level tokenizers cut text before their merges: llama.cpp's names for it, and tokenizer.json's steps.

The names are `tokenizer.ggml.pre`; the expressions are those of the published tokenizers, which llama.cpp implements
(`llm_tokenizer_bpe` in its src/llama-vocab.cpp).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Split", "split_named", "split_of"]

_SUFFIXES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class Split:
    """One way of cutting."""

    names: tuple[str, ...]
    """What llama.cpp calls it; the first is written."""
    pattern: str | None
    """The expression; None for the one of GPT-2, which tokenizer.json's ByteLevel step has built in."""
    digits: bool = False
    """Whether every digit is cut off before."""
    nfc: bool = False
    """Whether tokenizer.json normalises to NFC; llama.cpp does not normalise."""
    whole_words: bool = False
    """Whether a word that is a token is taken without its merges (`ignore_merges`)."""

    @property
    def steps(self) -> dict[str, Any]:
        """tokenizer.json's `pre_tokenizer`."""
        level = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": self.pattern is None,
        }
        steps: list[dict[str, Any]] = [{"type": "Digits", "individual_digits": True}] if self.digits else []
        if self.pattern is not None:
            pattern = {"Regex": self.pattern}
            steps.append({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False})
        return {"type": "Sequence", "pretokenizers": [*steps, level]} if steps else level


_SPLITS = (
    Split(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"),
        _SUFFIXES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _REST,
        whole_words=True,
    ),
    Split(
        ("qwen2", "deepseek-r1-qwen"), _SUFFIXES + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _REST, nfc=True
    ),
    Split(("tekken",), _TEKKEN, whole_words=True),
    Split(("smollm", "starcoder", "refact", "command-r", "codeshell"), None, digits=True),
    Split(("gpt-2", "phi-2", "gigachat"), None),
)  # fmt: skip


def split_named(name: str) -> Split | None:
    """Find the way of cutting that a GGUF file names."""
    return next((split for split in _SPLITS if name in split.names), None)


def split_of(tokenizer: Mapping[str, Any]) -> Split | None:
    """Find the way of cutting that a tokenizer.json describes."""
    found = _described(tokenizer.get("pre_tokenizer"))
    whole_words = bool(tokenizer["model"].get("ignore_merges"))
    fitting = [split for split in _SPLITS if (split.pattern, split.digits) == found]
    # What llama.cpp does with whole words follows from the name; it must be what the tokenizer does.
    return next((split for split in fitting if split.whole_words == whole_words), None)


def _described(step: Any) -> tuple[str | None, bool] | None:
    """Read (pattern, digits) off a `pre_tokenizer`; None for one that is of another kind."""
    steps = step.get("pretokenizers", [step]) if isinstance(step, Mapping) else []
    kinds = [one.get("type") for one in steps]
    if kinds[-1:] != ["ByteLevel"] or steps[-1].get("add_prefix_space"):
        return None
    uses_own = bool(steps[-1].get("use_regex", True))
    if kinds == ["Split", "ByteLevel"]:
        pattern = steps[0].get("pattern", {}).get("Regex")
        plain = steps[0].get("behavior") == "Isolated" and not uses_own
        return (pattern, False) if plain and pattern else None
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return (None, True) if uses_own else None
    return (None, False) if kinds == ["ByteLevel"] and uses_own else None
