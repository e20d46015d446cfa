"""Rotary positions as configs state them, brought to one manner.

transformers 4 has `rope_theta`, `rope_scaling` and, in some families, a second base for local layers, side by side at
the level of the model; transformers 5 has one `rope_parameters`, either flat or one dict for each kind of layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["rope"]

_ALIASES = {
    "rope_theta": ("rope_theta", "rotary_emb_base", "global_rope_theta", "rotary_base"),
    "rope_local_base_freq": ("rope_local_base_freq", "local_rope_theta"),
    "partial_rotary_factor": ("partial_rotary_factor", "rotary_pct", "rope_percentage"),
    "original_max_position_embeddings": ("original_max_position_embeddings",),
}
# Stated within a scaling by one version or family and beside it by another.
_BESIDE = ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
# Names of one and the same scaling. `mrope` is the plain kind with sections, which are compared on their own.
_KINDS = {"su": "longrope", "mrope": "default"}


def rope(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Read rope_theta, rope_local_base_freq, partial_rotary_factor and rope_scaling; the first config that states one wins.

    `rope_scaling` is always there: None where no scaling is stated.

    >>> rope([{"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}])
    {'rope_scaling': {'rope_type': 'linear', 'factor': 2.0}, 'rope_theta': 10000.0}
    """
    values: dict[str, Any] = {"rope_scaling": None}
    for config in configs:
        for key, value in _read(config).items():
            if values.get(key) is None:
                values[key] = value
    return values


def _read(config: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, names in _ALIASES.items():
        said = [config[name] for name in names if config.get(name) is not None]
        if said:
            values[key] = said[0]
    scaling = config.get("rope_scaling")
    if isinstance(scaling, Mapping):
        values.update(_parameters(scaling))
    parameters = config.get("rope_parameters")
    if isinstance(parameters, Mapping):
        values.update(_parameters(parameters))
    return values


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    by_kind = {kind: part for kind, part in parameters.items() if isinstance(part, Mapping)}
    if not by_kind:
        return _flat(parameters)
    values = _flat(by_kind.get("full_attention", {}))
    local = _flat(by_kind.get("sliding_attention", {}))
    if "rope_theta" in local:
        values["rope_local_base_freq"] = local["rope_theta"]
    if local.get("rope_scaling") is not None:
        values["rope_local_scaling"] = local["rope_scaling"]
    return values


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in parameters.items() if value is not None}
    values: dict[str, Any] = {key: rest.pop(key) for key in _BESIDE if key in rest}
    kind = rest.pop("rope_type", rest.pop("type", "default"))
    rest.pop("type", None)
    kind = _KINDS.get(kind, kind)
    if kind != "default" or rest:
        values["rope_scaling"] = {"rope_type": kind, **rest}
    return values
