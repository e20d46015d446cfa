"""Reading `parameters`: scalars, gradients and lists of `{filter, value}`."""

from __future__ import annotations

import math
import re

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from plait.recipe.document import Page, open_fields, pairs, scalar, text_of
from plait.recipe.types import Filtered, Scalar, Setting, Settings

__all__ = ["read_parameters", "read_setting"]

_NUMBER = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?(inf|infinity|nan)", re.IGNORECASE)
_LARGEST = 2**64
_SHAPES = "a number, text, true or false, a gradient (a list of these) or a list of {filter, value}"


def read_parameters(page: Page, node: Node | None) -> Settings:
    """Read a `parameters` mapping; entries at fault are left out."""
    if node is None:
        return {}
    if not isinstance(node, MappingNode):
        page.fault(node, f"'parameters' must be a mapping from names to values, not {page.shown(node)}.")
        return {}
    read = {name: read_setting(page, value, name) for name, (_, value) in pairs(page, node).items()}
    return {name: setting for name, setting in read.items() if setting is not None}


def read_setting(page: Page, node: Node, name: str) -> Setting | None:
    """Read the value of the parameter `name`; None when it is at fault."""
    entries = _entries(node)
    if entries is None:
        value = _scalar_or_gradient(page, node, name)
        return None if value is None else Setting(value, page.where(node))
    read = [_filtered(page, entry, name) for entry in entries]
    kept = tuple(entry for entry in read if entry is not None)
    _warn_unreachable(page, entries, kept)
    return Setting(kept, page.where(node)) if kept else None


def _entries(node: Node) -> list[Node] | None:
    """The `{filter, value}` entries of a setting; None when it is of another shape."""
    if isinstance(node, MappingNode):
        return [node]
    if isinstance(node, SequenceNode) and any(isinstance(entry, MappingNode) for entry in node.value):
        return list(node.value)
    return None


def _filtered(page: Page, node: Node, name: str) -> Filtered | None:
    hint = "Write the value for all other tensors as {value: ...}, last."
    fields = open_fields(page, node, f"An entry of parameter '{name}'", ("filter", "value"), hint)
    if fields is None:
        return None
    filter_node = fields.node_of("filter")
    wanted = None
    if filter_node is not None and (not isinstance(filter_node, ScalarNode) or filter_node.value):
        wanted = text_of(page, filter_node, f"The filter of parameter '{name}'")
    elif filter_node is not None:
        page.fault(filter_node, f"The filter of parameter '{name}' is empty.", "Leave it out to match every tensor.")
    value_node = fields.require("value")
    value = None if value_node is None else _scalar_or_gradient(page, value_node, name)
    return None if value is None else Filtered(wanted, value, page.where(node))


def _warn_unreachable(page: Page, nodes: list[Node], entries: tuple[Filtered, ...]) -> None:
    if len(nodes) != len(entries):
        return
    for node, entry in zip(nodes[:-1], entries, strict=False):
        if entry.filter in {None, "*"}:
            page.warn(node, "This entry matches every tensor, so those after it never apply.", "Put it last.")
            return


def _scalar_or_gradient(page: Page, node: Node, name: str) -> Scalar | tuple[Scalar, ...] | None:
    if isinstance(node, SequenceNode):
        return _gradient(page, node, name)
    return _value(page, node, name)


def _gradient(page: Page, node: SequenceNode, name: str) -> tuple[Scalar, ...] | None:
    if not node.value:
        page.fault(node, f"The gradient of parameter '{name}' is empty.", "Write at least one value.")
        return None
    read = [_value(page, part, name) for part in node.value]
    values = tuple(value for value in read if value is not None)
    if len(values) < len(read):
        return None
    if len({_kind(value) for value in values}) > 1:
        hint = "Write only numbers, only text, or only true and false."
        page.fault(node, f"The gradient of parameter '{name}' mixes types: {page.shown(node)}.", hint)
        return None
    if any(isinstance(value, float) and math.isinf(value) for value in values):
        page.fault(node, f"The gradient of parameter '{name}' must have finite numbers, not {page.shown(node)}.")
        return None
    return values


def _kind(value: Scalar) -> str:
    return "flag" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def _value(page: Page, node: Node, name: str) -> Scalar | None:
    if not isinstance(node, ScalarNode):
        page.fault(node, f"Parameter '{name}' must be {_SHAPES}, not {page.shown(node)}.")
        return None
    before = len(page.faults)
    value = scalar(page, node)
    if value is None:
        if len(page.faults) == before:
            page.fault(node, f"Parameter '{name}' has no value.", "Give it one, or leave it out.")
        return None
    if isinstance(value, str) and node.style is None:
        value = _plain_number(value)
    if isinstance(value, float) and math.isnan(value):
        page.fault(node, f"Parameter '{name}' is not a number: {page.shown(node)}.")
        return None
    if isinstance(value, int) and abs(value) > _LARGEST:
        page.fault(node, f"Parameter '{name}' is too large: {page.shown(node)}.")
        return None
    return value


def _plain_number(text: str) -> str | float:
    """YAML 1.1 reads `1e-3`, `-.5` and `inf` as text; without quotes they are meant as numbers."""
    if _NUMBER.fullmatch(text):
        return float(text.replace("_", ""))
    return float(text) if _NOT_FINITE.fullmatch(text) else text
