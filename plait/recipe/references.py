"""Model references: `path[@revision][+adapter[@revision]]`, or mergekit's mapping of the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from yaml.nodes import MappingNode, Node

from plait.recipe.document import Page, open_fields, text_of
from plait.recipe.types import ModelRef

if TYPE_CHECKING:
    from plait.errors import Where

__all__ = ["parse_reference", "read_reference"]


def parse_reference(text: str, where: Where | None = None) -> ModelRef:
    """Split a reference into its parts. What exists on disk under a name with `@` or `+` is taken whole.

    Raises:
        ValueError: a part is empty, or there are more `@` or `+` than a reference has.

    >>> parse_reference("org/model@v2+org/adapter").adapter
    'org/adapter'
    """
    if _exists(text) or _exists(text.rpartition("@")[0]):
        model, adapter = text, None
    else:
        model, adapter = _split_adapter(text)
    path, revision = _split_revision(model)
    adapter, adapter_revision = (None, None) if adapter is None else _split_revision(adapter)
    return ModelRef(path, revision, adapter, adapter_revision, where)


def _exists(path: str) -> bool:
    try:
        return bool(path) and Path(path).exists()
    except (OSError, ValueError):  # too long for a path, or a NUL in it
        return False


def _split_adapter(text: str) -> tuple[str, str | None]:
    parts = text.split("+")
    splits = [("+".join(parts[:i]), "+".join(parts[i:])) for i in range(1, len(parts))]
    if len(splits) <= 1:
        return splits[0] if splits else (text, None)
    on_disk = [split for split in splits if _exists(split[0])]
    if not on_disk:
        raise ValueError("it has more than one '+', and no part of it exists on disk")
    return on_disk[-1]


def _split_revision(text: str) -> tuple[str, str | None]:
    if not text:
        raise ValueError("the path before or after its '+' is empty")
    if "@" not in text or _exists(text):
        return text, None
    path, _, revision = text.rpartition("@")
    if "@" in path and not _exists(path):
        raise ValueError("a path takes one '@', before its revision")
    if not path or not revision:
        raise ValueError("the text before or after its '@' is empty")
    return path, revision


def read_reference(page: Page, node: Node, what: str) -> ModelRef | None:
    """Read a model reference in either form; None when it is at fault."""
    if isinstance(node, MappingNode):
        return _read_mapping(page, node, what)
    text = text_of(page, node, what)
    if text is None:
        return None
    try:
        return parse_reference(text, page.where(node))
    except ValueError as error:
        hint = "Write path[@revision][+adapter[@revision]], or the mapping {model: {path: ...}, lora: {path: ...}}."
        page.fault(node, f"{what} cannot be read from '{text}': {error}.", hint)
        return None


def _read_mapping(page: Page, node: MappingNode, what: str) -> ModelRef | None:
    fields = open_fields(page, node, what, ("model", "lora", "override_architecture"))
    if fields is None:
        return None
    if fields.text("override_architecture"):
        page.warn(
            fields.key_node("override_architecture"),
            "'override_architecture' has no effect: plait reads the structure off the checkpoint.",
        )
    model_node, lora_node = fields.require("model"), fields.node_of("lora")
    model = None if model_node is None else _read_path(page, model_node, "'model'")
    adapter = None if lora_node is None else _read_path(page, lora_node, "'lora'")
    if model is None:
        return None
    adapter_path, adapter_revision = adapter or (None, None)
    return ModelRef(*model, adapter_path, adapter_revision, page.where(node))


def _read_path(page: Page, node: Node, what: str) -> tuple[str, str | None] | None:
    """Read `path@revision` or {path, revision}; in the mapping the path is taken as it stands."""
    if isinstance(node, MappingNode):
        fields = open_fields(page, node, what, ("path", "revision"))
        if fields is None or fields.require("path") is None:
            return None
        path = fields.text("path")
        return None if path is None else (path, fields.text("revision"))
    text = text_of(page, node, what)
    try:
        return None if text is None else _split_revision(text)
    except ValueError as error:
        page.fault(node, f"{what} cannot be read from '{text}': {error}.", "Write {path: ..., revision: ...}.")
        return None
