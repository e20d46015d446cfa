"""Tensors that the donor has not, but another input has: which of them belong in the output."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from plait.planning.views import View
from plait.structure import component, language_configs, locate

__all__ = ["Extras", "modules_of_layer"]

# Lists with one entry a layer, saying what kind it is.
_KINDS = ("layer_types", "layers_block_type", "hybrid_override_pattern", "block_types", "block_configs")


@dataclass(frozen=True)
class Extras:
    """Judges such tensors by the donor's names and config: what its architecture has no place for stays out."""

    donor: View
    tied: Mapping[str, str]
    """Names that the output does not write."""

    def names(self, views: Iterable[View]) -> list[str]:
        """Return the names that only other models than the donor have, and that are not tied to others."""
        found = {name: None for view in views for name in view.entries if name not in self.donor.entries}
        return [name for name in found if name not in self.tied]

    def why_not(self, view: View, name: str) -> str:
        """Say why the output cannot have this tensor of the view; "" when it can."""
        found = self._another_layer(view, name) or self._another_class(view, name) or self._switched_off(view, name)
        return f"the output follows {self.donor.reference}, {found}" if found else ""

    def _another_layer(self, view: View, name: str) -> str:
        at = locate(name)
        stack = self.donor.stack(at.prefix) if at is not None else None
        if at is None or stack is None:
            return ""
        if at.index >= stack.length:
            return f"which has {stack.length} layers there"
        kinds = [_stated_kinds(one.config, at.index) for one in (self.donor, view)]
        mine, theirs = (modules_of_layer(one, at.prefix, at.index) for one in (self.donor, view))
        if not mine <= theirs or any(kinds[1].get(key, value) != value for key, value in kinds[0].items()):
            return "whose layer there is of another kind"
        return ""

    def _another_class(self, view: View, name: str) -> str:
        mine, theirs = _class_of(self.donor.config), _class_of(view.config)
        if mine and theirs:
            return "" if mine == theirs else f"which is a {mine}, and this is a {theirs}'s"
        # Without both configs only a head is known to be what the task needs, and not the model.
        head = component(name, view.entries[name].shape, None) == "head"
        return "which has no such head" if head else ""

    def _switched_off(self, view: View, name: str) -> str:
        """Find the config's switch that says the donor's class has no such tensor: attention_bias for a bias."""
        words = _words(name)
        mine, theirs = _settings(self.donor.config), _settings(view.config)
        for key, value in theirs.items():
            if value is True and mine.get(key) is not True and words & _words(key):
                said = str(mine[key]).lower() if mine.get(key) is not None else "nothing"
                return f"whose config says {key}: {said}" if key in mine else f"whose config does not say {key}: true"
        return ""


def modules_of_layer(view: View, prefix: str, index: int) -> frozenset[str]:
    """Return the modules directly under a layer: self_attn, mlp, ..."""
    return frozenset(suffix.split(".")[0] for suffix in view.layers.get((prefix, index), ()))


def _class_of(config: Mapping[str, Any] | None) -> str:
    named = (config or {}).get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def _stated_kinds(config: Mapping[str, Any] | None, index: int) -> dict[str, Any]:
    kinds: dict[str, Any] = {}
    for _, nested in language_configs(config):
        for key in _KINDS:
            listed = nested.get(key)
            if isinstance(listed, (list, str)) and index < len(listed):
                kinds[key] = listed[index]
    return kinds


def _settings(config: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for _, nested in language_configs(config) for key, value in nested.items()}


def _words(name: str) -> frozenset[str]:
    return frozenset(re.split(r"[._]", name)) & _TELLING


_TELLING = frozenset({"bias", "norm", "layernorm", "qknorm", "ln"})
"""Words of switches and of the tensors that they are for: attention_bias, use_qk_norm, qk_layernorm."""
