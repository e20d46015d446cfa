"""Reading `tokenizer_source` and `tokenizer`."""

from __future__ import annotations

from typing import Literal

from yaml.nodes import MappingNode, Node

from plait.errors import did_you_mean
from plait.recipe.document import Fields, Page, is_text, open_fields, pairs
from plait.recipe.references import read_reference
from plait.recipe.types import ModelRef, ModelToken, TokenizerSpec, TokenRule

__all__ = ["read_tokenizer"]

_KINDS = ("model_token", "zero")


def read_tokenizer(page: Page, fields: Fields) -> TokenizerSpec | None:
    """Read whichever of `tokenizer_source` and `tokenizer` the document has; both is a fault."""
    source, node = fields.node_of("tokenizer_source"), fields.node_of("tokenizer")
    if source is not None and node is not None:
        line = page.where(fields.key_node("tokenizer_source")).line
        message = f"The document has 'tokenizer' and 'tokenizer_source' (line {line}); it takes one of them."
        page.fault(fields.key_node("tokenizer"), message, "Write the source as 'source' in 'tokenizer'.")
    if node is not None:
        return _read_mapping(page, node)
    if source is None:
        return None
    return TokenizerSpec(_source(page, source, "'tokenizer_source'"), page.where(fields.key_node("tokenizer_source")))


def _source(page: Page, node: Node, what: str) -> str | ModelRef:
    if is_text(node) and node.value in {"union", "base"}:
        return str(node.value)
    return read_reference(page, node, what) or "union"


def _read_mapping(page: Page, node: Node) -> TokenizerSpec | None:
    hint = "For a source alone, write 'tokenizer_source'." if is_text(node) else ""
    fields = open_fields(page, node, "'tokenizer'", ("source", "tokens", "pad_to_multiple_of"), hint)
    if fields is None:
        return None
    source, tokens = fields.node_of("source"), fields.node_of("tokens")
    return TokenizerSpec(
        "union" if source is None else _source(page, source, "'source'"),
        page.where(node),
        {} if tokens is None else _read_tokens(page, tokens),
        fields.whole("pad_to_multiple_of", 1),
    )


def _read_tokens(page: Page, node: Node) -> dict[str, TokenRule]:
    if not isinstance(node, MappingNode):
        page.fault(node, f"'tokens' must be a mapping from tokens to their rules, not {page.shown(node)}.")
        return {}
    rules = {}
    for token, (_, value) in pairs(page, node).items():
        fields = open_fields(page, value, f"The rule of token '{token}'", ("source", "force"))
        if fields is not None:
            rules[token] = _read_rule(page, fields)
    return rules


def _read_rule(page: Page, fields: Fields) -> TokenRule:
    node, where = fields.node_of("source"), page.where(fields.node)
    source: ModelRef | ModelToken | Literal["zero"] | None = None
    if isinstance(node, MappingNode) and "kind" in pairs(page, node):
        source = _read_kind(page, node)
    elif node is not None:
        source = read_reference(page, node, "'source'")
    return TokenRule(where, source, bool(fields.flag("force")))


def _read_kind(page: Page, node: MappingNode) -> ModelToken | Literal["zero"] | None:
    kind = pairs(page, node)["kind"][1]
    if is_text(kind) and kind.value == "zero":
        open_fields(page, node, "A source of kind zero", ("kind",))
        return "zero"
    if is_text(kind) and kind.value == "model_token":
        return _read_model_token(page, Fields(page, node, "A source of kind model_token", _MODEL_TOKEN))
    hint = f"{did_you_mean(str(kind.value), _KINDS)} The kinds are: {', '.join(_KINDS)}.".strip()
    page.fault(kind, f"There is no kind of token source {page.shown(kind)}.", hint)
    return None


_MODEL_TOKEN = ("kind", "model", "token", "token_id")


def _read_model_token(page: Page, fields: Fields) -> ModelToken | None:
    given = [key for key in ("token", "token_id") if fields.node_of(key) is not None]
    if len(given) != 1 and not any(fields.suggests(key) for key in ("token", "token_id")):
        message = f"A source of kind model_token takes exactly one of 'token' and 'token_id', not {len(given)}."
        page.fault(fields.node, message)
    token, token_id = fields.text("token"), fields.whole("token_id", 0)
    node = fields.require("model")
    model = None if node is None else read_reference(page, node, "'model'")
    return None if model is None else ModelToken(model, token, token_id)
