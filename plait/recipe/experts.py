"""Reading `experts:` (plait's own)."""

from __future__ import annotations

from typing import Literal

from plait.errors import did_you_mean
from plait.recipe.document import Fields, Page, is_text, open_fields
from plait.recipe.types import ExpertsSpec

__all__ = ["read_experts"]

_WAYS: dict[str, Literal["weights", "router"]] = {"weights": "weights", "router": "router"}


def read_experts(page: Page, fields: Fields) -> ExpertsSpec | None:
    """Read `experts` of a document: by what experts are matched before they are merged."""
    node = fields.node_of("experts")
    if node is None:
        return None
    own = open_fields(page, node, "'experts'", ("match",), "Write `experts: {match: weights}`.")
    written = None if own is None else own.require("match")
    if written is None:
        return None
    way = _WAYS.get(str(written.value)) if is_text(written) else None
    if way is None:
        hint = f"{did_you_mean(str(written.value), list(_WAYS))} Choose from: {', '.join(_WAYS)}.".strip()
        page.fault(written, f"'match' has no way {page.shown(written)}.", hint)
        return None
    return ExpertsSpec(page.where(fields.key_node("experts")), way)
