"""The output's small files: whose tokenizer, which chat template, whose generation config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plait.checkpoint.side_files import MODEL
from plait.errors import Fault, did_you_mean
from plait.planning.templates import TEMPLATES
from plait.planning.views import View
from plait.recipe.types import Recipe

__all__ = ["SideFiles", "plan_side_files", "template_of"]

TEMPLATE = "chat_template.jinja"
_JSON_TEMPLATE = "chat_template.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True)
class SideFiles:
    """Files to copy and files to write, by name."""

    files: Mapping[str, Path]
    texts: Mapping[str, str]
    note: str = ""


def plan_side_files(recipe: Recipe, views: Sequence[View], donor: View, tokens: View) -> tuple[SideFiles, list[Fault]]:
    """Take generation and processor configs from `donor`, tokenizer files from `tokens`, the template as asked.

    `views` are the inputs, the donor first and then in recipe order: so `auto` decides between equals.
    """
    files = {name: path for name, path in tokens.files.items() if name not in MODEL}
    files |= {name: path for name, path in donor.files.items() if name in MODEL}
    own = SideFiles(files, dict(tokens.texts))
    asked = recipe.chat_template
    if asked is None:
        return own, []
    if asked == "auto":
        return _plurality(own, views), []
    if asked in TEMPLATES:
        return _with_template(own, TEMPLATES[asked], f"chat_template: plait's own {asked}."), []
    if not _is_template(asked):
        return own, [_unknown(recipe, asked)]
    return _with_template(own, asked, ""), []


def _is_template(text: str) -> bool:
    return any(mark in text for mark in ("{{", "{%", "{#"))


def _unknown(recipe: Recipe, asked: str) -> Fault:
    hint = f"Write the template itself, `auto` for the one that most inputs have, or one of {', '.join(TEMPLATES)}."
    near = did_you_mean(asked, ["auto", *TEMPLATES])
    message = f"chat_template: {asked!r} is neither a Jinja template nor the name of one."
    return Fault(message, recipe.where, f"{near} {hint}".strip())


def _plurality(own: SideFiles, views: Sequence[View]) -> SideFiles:
    """The template that most inputs have; of equally common ones that of the earliest input."""
    counts: dict[str, list[str]] = {}
    for view in views:
        text = template_of(view.files, view.texts)
        if text is not None:
            counts.setdefault(text, []).append(view.reference)
    if not counts:
        return own
    chosen = max(counts, key=lambda text: len(counts[text]))  # max keeps the first of equals
    note = f"chat_template: auto takes that of {', '.join(counts[chosen])}, of {len(counts)} different ones."
    if chosen == template_of(own.files, own.texts):
        return SideFiles(own.files, own.texts, note)
    return _with_template(own, chosen, note)


def template_of(files: Mapping[str, Path], texts: Mapping[str, str] | None = None) -> str | None:
    """Read a model's chat template: from chat_template.jinja, chat_template.json or tokenizer_config.json."""
    if texts and TEMPLATE in texts:
        return texts[TEMPLATE]
    if TEMPLATE in files:
        return files[TEMPLATE].read_text(encoding="utf-8")
    for name in (_JSON_TEMPLATE, _TOKENIZER_CONFIG):
        said = json.loads(texts[name]) if texts and name in texts else _json(files[name]) if name in files else {}
        stated = said.get("chat_template")
        if isinstance(stated, list):
            named = {entry.get("name"): entry.get("template") for entry in stated if isinstance(entry, dict)}
            stated = named.get("default")
        if isinstance(stated, str):
            return stated
    return None


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _with_template(own: SideFiles, text: str, note: str) -> SideFiles:
    """Put a template in the place of every other that the files hold."""
    files, texts = dict(own.files), {**own.texts, TEMPLATE: text}
    files.pop(TEMPLATE, None)
    for name in (_JSON_TEMPLATE, _TOKENIZER_CONFIG):
        stated = json.loads(texts[name]) if name in texts else _json(files[name]) if name in files else {}
        if "chat_template" in stated:
            texts[name] = json.dumps(stated | {"chat_template": text}, indent=2, ensure_ascii=False) + "\n"
            files.pop(name, None)
    return SideFiles(files, texts, note)
