"""Reading `parameters`: scalars, gradients, numbers a layer and lists of `{filter, component, value}`."""

from __future__ import annotations

import math

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from plait.errors import did_you_mean
from plait.recipe.coefficients import is_per_layer, read_per_layer
from plait.recipe.document import Fields, Page, open_fields, pairs, plain_number, scalar, text_of
from plait.recipe.types import COMPONENTS, Filtered, PerLayer, Scalar, Setting, Settings

__all__ = ["read_component", "read_parameters", "read_setting"]

_LARGEST = 2**64
_SHAPES = "a number, text, true or false, a gradient (a list of these), {file: ...} or a list of {filter, value}"


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
    entries = _entries(page, node)
    if entries is None:
        value = _one_value(page, node, name)
        return None if value is None else Setting(value, page.where(node))
    read = [_filtered(page, entry, name) for entry in entries]
    kept = tuple(entry for entry in read if entry is not None)
    _warn_unreachable(page, entries, kept)
    return Setting(kept, page.where(node)) if kept else None


def _entries(page: Page, node: Node) -> list[Node] | None:
    """The `{filter, value}` entries of a setting; None when it is of another shape."""
    if isinstance(node, MappingNode):
        return None if is_per_layer(page, node) else [node]
    if isinstance(node, SequenceNode) and any(isinstance(entry, MappingNode) for entry in node.value):
        return list(node.value)
    return None


def _filtered(page: Page, node: Node, name: str) -> Filtered | None:
    hint = "Write the value for all other tensors as {value: ...}, last."
    fields = open_fields(page, node, f"An entry of parameter '{name}'", ("filter", "component", "value"), hint)
    if fields is None:
        return None
    filter_node = fields.node_of("filter")
    wanted = None
    if filter_node is not None and (not isinstance(filter_node, ScalarNode) or filter_node.value):
        wanted = text_of(page, filter_node, f"The filter of parameter '{name}'")
    elif filter_node is not None:
        page.fault(filter_node, f"The filter of parameter '{name}' is empty.", "Leave it out to match every tensor.")
    value_node = fields.require("value")
    value = None if value_node is None else _one_value(page, value_node, name)
    of = read_component(page, fields)
    return None if value is None else Filtered(wanted, value, page.where(node), of)


def read_component(page: Page, fields: Fields) -> str | None:
    """Read `component`, one of the words for what a tensor is for; None when absent or at fault."""
    word = fields.text("component")
    if word is None or word in COMPONENTS:
        return word
    hint = f"{did_you_mean(word.lower(), COMPONENTS)} They are: {', '.join(COMPONENTS)}.".strip()
    page.fault(fields.node_of("component") or fields.node, f"There is no component '{word}'.", hint)
    return None


def _warn_unreachable(page: Page, nodes: list[Node], entries: tuple[Filtered, ...]) -> None:
    if len(nodes) != len(entries):
        return
    for node, entry in zip(nodes[:-1], entries, strict=False):
        if entry.filter in {None, "*"} and entry.component is None:
            page.warn(node, "This entry matches every tensor, so those after it never apply.", "Put it last.")
            return


def _one_value(page: Page, node: Node, name: str) -> Scalar | tuple[Scalar, ...] | PerLayer | None:
    if isinstance(node, SequenceNode):
        return _gradient(page, node, name)
    if is_per_layer(page, node):
        return read_per_layer(page, node, name)
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
        value = plain_number(value)
    if isinstance(value, float) and math.isnan(value):
        page.fault(node, f"Parameter '{name}' is not a number: {page.shown(node)}.")
        return None
    if isinstance(value, int) and abs(value) > _LARGEST:
        page.fault(node, f"Parameter '{name}' is too large: {page.shown(node)}.")
        return None
    return value
