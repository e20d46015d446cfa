"""Reading `adapter:` (plait's own): the output is an adapter, and how much of the merged change it keeps."""

from __future__ import annotations

from yaml.nodes import Node, ScalarNode

from plait.recipe.document import Fields, Page, open_fields, plain_number, scalar
from plait.recipe.types import AdapterSpec

__all__ = ["read_adapter_section"]

_MEASURES = ("rank", "energy", "error", "exact", "clusters")
_NOT_BESIDE = {
    "slices": "An adapter's layers stay where they are: list the adapters under 'models'.",
    "modules": "List the adapters under 'models'.",
    "experts": "Adapters of experts are merged under the names that they have.",
    "tokenizer": "An adapter has no vocabulary; the tokenizer files of the first adapter that has some are copied.",
    "tokenizer_source": "An adapter has no vocabulary; the tokenizer files of the first adapter that has some are copied.",
    "chat_template": "The tokenizer files of the first adapter that has some are copied as they are.",
}


def read_adapter_section(page: Page, fields: Fields) -> AdapterSpec | None:
    """Read `adapter` of a document, and refuse what cannot stand beside it."""
    node = fields.node_of("adapter")
    if node is None:
        return None
    hint = "Write how much to keep, as `adapter: {rank: 16}` or `adapter: {exact: true}`."
    own = open_fields(page, node, "'adapter'", (*_MEASURES, "base_name"), hint)
    for key, way_out in _NOT_BESIDE.items():
        if fields.node_of(key) is not None:
            page.fault(fields.key_node(key), f"'{key}' cannot stand beside 'adapter'.", way_out)
    if own is None:
        return None
    _check_measure(page, own)
    exact = own.flag("exact")
    if exact is False:
        page.fault(own.key_node("exact"), "'exact' can only be true.", "Leave it out and write 'rank', say.")
    return AdapterSpec(
        where=page.where(fields.key_node("adapter")),
        rank=own.whole("rank", 1),
        energy=_fraction(page, own, "energy"),
        error=_fraction(page, own, "error"),
        exact=bool(exact),
        clusters=own.whole("clusters", 1),
        base_name=own.text("base_name"),
    )


def _check_measure(page: Page, own: Fields) -> None:
    given = [key for key in _MEASURES if own.node_of(key) is not None]
    choice = f"exactly one of {', '.join(repr(key) for key in _MEASURES)}"
    if len(given) > 1:
        has = " and ".join(f"'{key}'" for key in given)
        page.fault(own.key_node(given[1]), f"'adapter' takes {choice}, but has {has}.")
    elif not given and not any(own.suggests(key) for key in _MEASURES):
        page.fault(own.node, f"'adapter' needs {choice}.")


def _fraction(page: Page, own: Fields, key: str) -> float | None:
    node: Node | None = own.node_of(key)
    if node is None:
        return None
    value = scalar(page, node) if isinstance(node, ScalarNode) else None
    value = plain_number(value) if isinstance(value, str) else value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1:
        return float(value)
    page.fault(node, f"'{key}' must be a fraction between 0 and 1, not {page.shown(node)}.")
    return None
