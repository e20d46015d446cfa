"""Rewriting a config.json so that it says the truth about a merged model."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from plait.dtypes import dtype_by_name
from plait.output.layer_settings import ConfigNote, Source, rewrite_layer_settings, short
from plait.structure.configs import LayerCount, language_configs, layer_counts, stated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ConfigNote", "output_config"]

Config = dict[str, Any]
_DTYPE_KEYS = ("dtype", "torch_dtype")
_EXTRA_LAYERS = ("num_nextn_predict_layers", "num_mtp_layers")


@dataclass
class _Rewrite:
    """The config being written, and what was changed so far."""

    config: Config
    notes: list[ConfigNote] = field(default_factory=list)

    def put(self, path: tuple[str, ...], key: str, value: Any) -> None:
        """Set a value in the nested config at `path`, and note it where it is new."""
        nested = _at(self.config, path)
        name = ".".join((*path, key))
        if key not in nested:
            self.notes.append(ConfigNote(name, f"{name}: added, {short(value)}"))
        elif nested[key] != value or isinstance(nested[key], bool) != isinstance(value, bool):
            self.notes.append(ConfigNote(name, f"{name}: {short(nested[key])} -> {short(value)}"))
        nested[key] = value

    def warn(self, key: str, message: str) -> None:
        self.notes.append(ConfigNote(key, message, warning=True))


def output_config(
    donor: Mapping[str, Any],
    *,
    layers: Sequence[tuple[Mapping[str, Any], int]] | None = None,
    stack_length: int | None = None,
    stack_prefix: str = "",
    dtype: str | None = None,
    vocab_size: int | None = None,
    tied: bool | None = None,
    model_type: str | None = None,
    drop_quantization: bool = False,
) -> tuple[Config, tuple[ConfigNote, ...]]:
    """Copy a config, changing only what the merge has made untrue; every other key keeps its value and its place.

    Args:
        donor: the config.json to start from. It isn't changed, nor is any in `layers`.
        layers: for each output layer, in order, the config of the model it comes from (the first, where several are
            merged) and its layer there, counted from 0. None when the output has the donor's layers, each in its place.
            The number of layers, lists with one entry a layer, lists of layer numbers, and bounds such as
            `max_window_layers` are made to say of each output layer what its source's config says of it.
        stack_length: number of layers of the donor's stack, as its tensors have it; None to take the config's word.
        stack_prefix: prefix of the stack that `layers` speaks of, to tell an encoder's counts from a decoder's;
            "" sets every count that equals the donor's.
        dtype: element type by its torch name ("bfloat16"), None to leave it; written to `dtype` or `torch_dtype`,
            whichever is there, in nested configs too, or to `torch_dtype` where there is neither.
        vocab_size: number of rows of the token tables, None to leave it.
        tied: whether the head is the input embeddings, None to leave it.
        model_type: what to add where the donor states no `model_type`.
        drop_quantization: whether to leave out `quantization_config`, because the output isn't quantised.

    Returns:
        The new config, and a note for every change. Notes with `warning` name what could not be made true: a key
        that states a rhythm of layers ("every sixth is full attention") which the output does not keep.
    """
    rewrite = _Rewrite(deepcopy(dict(donor)))
    if layers is not None:
        _set_layers(rewrite, donor, layers, stack_length, stack_prefix)
    if dtype is not None:
        _set_dtype(rewrite, dtype.removeprefix("torch."))
    if vocab_size is not None:
        _set_vocab(rewrite, vocab_size)
    if tied is not None:
        _set_tie(rewrite, tied)
    if model_type is not None and not rewrite.config.get("model_type"):
        rewrite.put((), "model_type", model_type)
    if drop_quantization and rewrite.config.pop("quantization_config", None) is not None:
        rewrite.notes.append(ConfigNote("quantization_config", "quantization_config: removed, the output is plain"))
    return rewrite.config, tuple(rewrite.notes)


def _at(config: Config, path: tuple[str, ...]) -> Config:
    for key in path:
        config = config[key]
    return config


def _set_layers(
    rewrite: _Rewrite,
    donor: Mapping[str, Any],
    layers: Sequence[tuple[Mapping[str, Any], int]],
    stack_length: int | None,
    stack_prefix: str,
) -> None:
    counts = _counts_of(donor, stack_length, stack_prefix)
    if not counts:
        length = "the layers" if stack_length is None else f"{stack_length} layers"
        rewrite.warn("num_hidden_layers", f"no key of the config states {length}, so none was set to {len(layers)}")
        return
    sources = [_source(config, index, counts, stack_prefix) for config, index in layers]
    regular = [source for source in sources if source.index < source.length]
    # Layers past the stated number predict further tokens (multi-token prediction); they are counted by another key.
    extra = len(sources) - len(regular)
    if sources[: len(regular)] != regular:
        rewrite.warn("num_hidden_layers", "a layer that only predicts further tokens is followed by ordinary layers")
    for count in counts:
        if count.counts:
            rewrite.put(count.path, count.key, len(regular))
    if _is_shared(donor, counts, stack_prefix):
        rewrite.warn(counts[0].key, f"{counts[0].key} counts the encoder's layers and the decoder's alike")
    for path in dict.fromkeys(count.path for count in counts):
        for key in _EXTRA_LAYERS:
            if isinstance(_at(rewrite.config, path).get(key), int) and stack_length is not None:
                rewrite.put(path, key, extra)
        rewrite.notes += rewrite_layer_settings(_at(rewrite.config, path), path, counts[0].count, regular)


def _counts_of(config: Mapping[str, Any], length: int | None, prefix: str) -> list[LayerCount]:
    """The statements of the number of layers of the donor's stack: those that equal it, of the right side."""
    counts = _of_side(layer_counts(config), prefix)
    if length is None:
        return [count for count in counts if count.count == counts[0].count]
    extra = {number for key in _EXTRA_LAYERS for number in stated(config, key) if isinstance(number, int)}
    exact = [count for count in counts if count.count == length]
    return exact or [count for count in counts if length - count.count in extra]


def _of_side(counts: Sequence[LayerCount], prefix: str) -> list[LayerCount]:
    """Of an encoder-decoder's counts, those of the side that the stack's prefix names; all where it names none."""
    for side, other in (("encoder", "decoder"), ("decoder", "encoder")):
        if side in prefix.split("."):
            own = [count for count in counts if any(side in key for key in (*count.path, count.key))]
            neutral = [count for count in counts if not any(other in key for key in (*count.path, count.key))]
            return own or neutral
    return list(counts)


def _is_shared(donor: Mapping[str, Any], counts: Sequence[LayerCount], prefix: str) -> bool:
    """Whether a count that was meant for one side of an encoder-decoder is all that the other side has to go by."""
    if not donor.get("is_encoder_decoder") or not {"encoder", "decoder"} & set(prefix.split(".")):
        return False
    stack = _of_side(layer_counts(donor), "encoder")
    return stack == _of_side(layer_counts(donor), "decoder") and counts[0] in stack


def _source(config: Mapping[str, Any], index: int, counts: Sequence[LayerCount], prefix: str) -> Source:
    """A layer with the config that speaks of it: where the donor's speaks of its own, or else the deepest that does."""
    theirs = _of_side(layer_counts(config), prefix)
    if not theirs:
        return Source(config, index + 1, index)
    places = {(count.path, count.key) for count in counts}
    # A nested text config's own count goes before a copy at the top level.
    chosen = max(theirs, key=lambda count: ((count.path, count.key) in places, len(count.path)))
    nested: Any = config
    for key in chosen.path:
        nested = nested[key]
    return Source(nested, chosen.count, index)


def _set_dtype(rewrite: _Rewrite, dtype: str) -> None:
    if not any(key in rewrite.config for key in _DTYPE_KEYS):
        rewrite.put((), "torch_dtype", dtype)
    pending: list[tuple[tuple[str, ...], Config]] = [((), rewrite.config)]
    while pending:
        path, nested = pending.pop(0)
        for key, value in list(nested.items()):
            # Null in a nested config means that the top level decides.
            named = isinstance(value, str) and dtype_by_name(value) is not None
            if key in _DTYPE_KEYS and (named or not path):
                rewrite.put(path, key, dtype)
            elif isinstance(value, dict) and key != "quantization_config":
                pending.append(((*path, key), value))


def _set_vocab(rewrite: _Rewrite, vocab_size: int) -> None:
    paths = [path for path, nested in language_configs(rewrite.config) if nested.get("vocab_size") is not None]
    if not paths:
        text = rewrite.config.get("text_config")
        paths = [("text_config",) if isinstance(text, dict) else ()]
    for path in paths:
        rewrite.put(path, "vocab_size", vocab_size)


def _set_tie(rewrite: _Rewrite, tied: bool) -> None:
    rewrite.put((), "tie_word_embeddings", tied)
    for path, nested in list(language_configs(rewrite.config)):
        if path and nested.get("tie_word_embeddings") is not None:
            rewrite.put(path, "tie_word_embeddings", tied)
