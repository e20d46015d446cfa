"""Where a config.json states things: which of its nested configs speak of the language model, and their layer counts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Config", "LayerCount", "is_language_key", "language_configs", "layer_counts", "other_configs", "stated"]

Config = Mapping[str, Any]

_COUNT_KEYS = (
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "num_transformer_layers",
    "num_blocks",
    "encoder_layers",
    "decoder_layers",
    "num_encoder_layers",
    "num_decoder_layers",
    "encoder_num_hidden_layers",
    "decoder_num_hidden_layers",
    "decoder_num_layers",
    "depth",
)
# Lists with one entry a layer: where no key counts the layers, their length does.
_KIND_KEYS = ("layer_types", "layers_block_type", "hybrid_override_pattern", "block_configs")
_OTHER_MODALITY = re.compile(
    r"vision|visual|image|audio|speech|video|(^|_)vit(_|$)|(^|_)vq|codec|backbone|projector|resampler|perceiver|qformer"
)


@dataclass(frozen=True, slots=True)
class LayerCount:
    """One statement of a number of layers: `config[path[0]]…[key]` is, or has the length, `count`."""

    path: tuple[str, ...]
    """Keys of the nested config; () is the top level."""
    key: str
    count: int
    counts: bool = True
    """False where `key` is a list with one entry a layer, and not a number."""


def _nested(config: Config, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Config]]:
    yield path, config
    for key, value in config.items():
        if isinstance(value, Mapping) and (path or key != "quantization_config"):
            yield from _nested(value, (*path, key))


def is_language_key(key: str) -> bool:
    """Whether a nested config under this key is of the language model, and not of a vision, audio or like part.

    >>> is_language_key("text_config"), is_language_key("vision_config")
    (True, False)
    """
    return _OTHER_MODALITY.search(key) is None


def language_configs(config: Config | None) -> Iterator[tuple[tuple[str, ...], Config]]:
    """Yield (path, config) for the top level, then every nested dict that is not of a vision, audio or like part.

    >>> gemma = {"text_config": {"vocab_size": 9}, "vision_config": {"depth": 2}}
    >>> [path for path, _ in language_configs(gemma)]
    [(), ('text_config',)]
    """
    for path, nested in _nested(config or {}):
        if all(is_language_key(key) for key in path):
            yield path, nested


def other_configs(config: Config | None) -> Iterator[tuple[tuple[str, ...], Config]]:
    """Yield what `language_configs` leaves out: configs of vision towers, audio encoders, projectors."""
    for path, nested in _nested(config or {}):
        if not all(is_language_key(key) for key in path):
            yield path, nested


def stated(config: Config | None, key: str) -> tuple[Any, ...]:
    """Every value other than null that the language configs give `key`, top level first.

    >>> stated({"vocab_size": None, "text_config": {"vocab_size": 97}}, "vocab_size")
    (97,)
    """
    found = (nested.get(key) for _, nested in language_configs(config))
    return tuple(value for value in found if value is not None)


def layer_counts(config: Config | None) -> tuple[LayerCount, ...]:
    """Every number of layers that the config states, for the language model where it has one.

    Falls back on the lists that have one entry a layer (`layer_types` and the like), then on the configs of vision
    and audio parts, so that a model which is nothing else still has a count.
    """
    language = tuple(language_configs(config))
    return _counts(language) or _lengths(language) or _counts(tuple(other_configs(config)))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _counts(configs: tuple[tuple[tuple[str, ...], Config], ...]) -> tuple[LayerCount, ...]:
    return tuple(
        LayerCount(path, key, nested[key])
        for path, nested in configs
        for key in _COUNT_KEYS
        if _is_count(nested.get(key))
    )


def _lengths(configs: tuple[tuple[tuple[str, ...], Config], ...]) -> tuple[LayerCount, ...]:
    return tuple(
        LayerCount(path, key, len(nested[key]), counts=False)
        for path, nested in configs
        for key in _KIND_KEYS
        if isinstance(nested.get(key), list | tuple | str) and nested[key]
    )
