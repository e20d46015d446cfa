"""What a config says of single layers, rebuilt for layers that were moved, repeated or taken from several models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plait.structure.configs import is_language_key, layer_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ConfigNote", "Source", "rewrite_layer_settings", "short"]

Config = dict[str, Any]

# Lists that may be as long as there are layers by chance, and say nothing of layers.
_NOT_A_LAYER = re.compile(
    r"token|architectures|conv_|kernel|stride|dilation|tdnn|image|patch|mean|std|limit|multipliers|section|label|"
    r"language|out_features|out_ind|stage|_factor$|mtp|torchscript|auto_map|resolution|pinpoints"
)
_NOT_A_CONFIG = re.compile(r"^rope_|quantization|task_specific|label|auto_map")
_INDEX_LIST = re.compile(r"(idxs?|indices|indexes|layer_ids|layer_nums|_layers)$")
# Named like a list of layer numbers, but one flag a layer (SmolLM3, Llama 4).
_FLAGS = ("no_rope_layers",)
_CYCLE = re.compile(r"(block|layer)s?(_block)?_types?$")
# The first so many layers are of one kind and the rest of another.
_LEADING = ("max_window_layers", "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
# The last so many layers are of another kind.
_TRAILING = ("num_kv_shared_layers",)
_RHYTHM = re.compile(r"period|interval|every_n|pattern|_freq(uency)?$|sparse_step|layer_step")
_OF_LAYERS = re.compile(r"layer|attn|attention|expert|moe|sparse|window|rope|hybrid")
# A list with one entry a layer makes the rhythm of the same trait idle.
_EXPLICIT = (
    (re.compile(r"expert|moe|sparse"), ("mlp_layer_types", "moe_layers")),
    (re.compile(r"rope"), ("no_rope_layers",)),
    (re.compile(r""), ("layer_types", "layers_block_type", "block_types")),
)


@dataclass(frozen=True, slots=True)
class ConfigNote:
    """One change to a config, or with `warning` one thing in it that the output does not keep to."""

    key: str
    """Dotted path of the key."""
    message: str
    warning: bool = False

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Source:
    """Where an output layer comes from: the config that speaks of the source's layers, how many, and which one."""

    config: Mapping[str, Any]
    length: int
    index: int

    def value(self, path: tuple[str, ...]) -> Any:
        """What the source states at `path` below its own layers' config; None where it is silent."""
        value: Any = self.config
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def short(value: Any) -> str:
    """A value as a note shows it: long lists and texts by their length.

    >>> short([1, 2]), short(["full_attention"] * 9)
    ('[1, 2]', '9 entries')
    """
    if isinstance(value, list | tuple) and len(str(value)) > 60:
        return f"{len(value)} entries"
    return "null" if value is None else str(value)


def rewrite_layer_settings(
    config: Config, path: tuple[str, ...], length: int, sources: Sequence[Source]
) -> list[ConfigNote]:
    """Make every setting of single layers in `config` true of the output layers; changes `config` in place.

    Args:
        config: the nested config that counts the layers; a copy of the donor's.
        path: where it lies in the whole config, for the notes.
        length: the donor's number of layers.
        sources: one for each output layer.
    """
    notes: list[ConfigNote] = []
    for inner, holder in list(_holders(config, ())):
        for key in list(holder):
            where = (*inner, key)
            name = ".".join((*path, *where))
            rebuilt, doubt = _rebuilt(key, holder[key], where, length, sources)
            if doubt and key == "max_window_layers" and _no_window_bound(holder):
                continue
            if doubt:
                notes.append(ConfigNote(name, f"{name}: {doubt}", warning=True))
            if rebuilt != holder[key]:
                notes.append(ConfigNote(name, f"{name}: {short(holder[key])} -> {short(rebuilt)}"))
                holder[key] = rebuilt
        notes += _broken_rhythms(holder, inner, path, sources)
    return notes


def _no_window_bound(holder: Config) -> bool:
    """Whether nothing heeds `max_window_layers`: windows are off, or listed layer by layer."""
    return holder.get("use_sliding_window") is False or bool(holder.get("layer_types"))


def _holders(config: Config, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Config]]:
    yield path, config
    for key, value in config.items():
        # A nested config that counts layers of its own is another stack's, or is rewritten for itself.
        own_layers = isinstance(value, dict) and any(count.counts for count in layer_counts(value))
        if isinstance(value, dict) and is_language_key(key) and not (own_layers or _NOT_A_CONFIG.search(key)):
            yield from _holders(value, (*path, key))


def _rebuilt(key: str, value: Any, where: tuple[str, ...], length: int, sources: Sequence[Source]) -> tuple[Any, str]:
    """The value for the output's layers, and a doubt in words or "". The value itself where it isn't about layers."""
    if _is_number(value):
        return _number(key, value, where, sources)
    if not _NOT_A_LAYER.search(key):
        if isinstance(value, str):
            return _text(key, value, where, length, sources)
        if isinstance(value, list | tuple):
            return _list(key, value, where, length, sources)
    return value, ""


def _number(key: str, value: int, where: tuple[str, ...], sources: Sequence[Source]) -> tuple[int, str]:
    if key in _LEADING:
        return _bound(value, where, sources, lambda source, bound: source.index < bound)
    if key in _TRAILING:
        return _trailing(value, where, sources)
    return value, ""


def _list(
    key: str, value: Sequence[Any], where: tuple[str, ...], length: int, sources: Sequence[Source]
) -> tuple[Any, str]:
    if _is_index_list(key, value, length):
        return _indices(value, where, sources)
    if len(value) == length:
        kinds, doubt = _entries(where, length, sources, list)
        return _like(value, kinds), doubt
    if key == "attention_types" and len(_expanded(value)) == length:
        kinds, doubt = _entries(where, length, sources, _expanded)
        return [[kinds, 1]], doubt
    if _CYCLE.search(key) and 0 < len(value) < length:
        return _cycle(value, where, length, sources)
    return value, ""


def _like(value: Sequence[Any], entries: list[Any]) -> Sequence[Any]:
    return tuple(entries) if isinstance(value, tuple) else entries


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_index_list(key: str, value: Sequence[Any], length: int) -> bool:
    named = _INDEX_LIST.search(key) is not None and key not in _FLAGS
    numbers = all(_is_number(entry) and 0 <= entry < length for entry in value)
    return named and numbers and len(set(value)) == len(value)


def _entries(
    where: tuple[str, ...], length: int, sources: Sequence[Source], read: Callable[[Any], list[Any]]
) -> tuple[list[Any], str]:
    """One entry for each output layer, each from its own source's list."""
    entries: list[Any] = []
    silent = 0
    usual = next((listed for source in sources if len(listed := _listed(source, where, read)) == source.length), [])
    for source in sources:
        listed = _listed(source, where, read)
        if source.index >= len(listed):
            silent += 1
            listed = usual
        entries.append(deepcopy(listed[source.index]) if source.index < len(listed) else None)
    doubt = f"{silent} output layers come from a model whose config has no such list of {length}; taken from another's"
    return entries, doubt if silent else ""


def _listed(source: Source, where: tuple[str, ...], read: Callable[[Any], list[Any]]) -> list[Any]:
    value = source.value(where)
    return read(value) if isinstance(value, list | tuple | str) else []


def _expanded(value: Any) -> list[Any]:
    """GPT-Neo's runs, `[[["global", "local"], 12]]`, as one entry a layer; [] where it isn't such a list."""
    kinds: list[Any] = []
    for run in value:
        if not (isinstance(run, list | tuple) and len(run) == 2 and isinstance(run[0], list | tuple)):
            return []
        kinds += list(run[0]) * run[1]
    return kinds


def _text(key: str, value: str, where: tuple[str, ...], length: int, sources: Sequence[Source]) -> tuple[Any, str]:
    # NemotronH: "M-M*-", one character a layer.
    if len(value) != length or not (_RHYTHM.search(key) and _OF_LAYERS.search(key)):
        return value, ""
    kinds, doubt = _entries(where, length, sources, list)
    return "".join(kind or "?" for kind in kinds), doubt


def _indices(value: Sequence[Any], where: tuple[str, ...], sources: Sequence[Source]) -> tuple[Any, str]:
    chosen = []
    silent = 0
    for index, source in enumerate(sources):
        listed = source.value(where)
        silent += not isinstance(listed, list | tuple)
        if source.index in (listed or ()):
            chosen.append(index)
    doubt = f"{silent} output layers come from a model whose config has no such list; taken as not in it"
    # An empty list that stays empty is in no doubt.
    return _like(value, chosen), doubt if silent and (chosen or value) else ""


def _cycle(
    value: Sequence[Any], where: tuple[str, ...], length: int, sources: Sequence[Source]
) -> tuple[Sequence[Any], str]:
    # RecurrentGemma: three kinds, over and over. Kept where the output keeps the rhythm, else written out.
    def read(kinds: Any) -> list[Any]:
        longest = max(length, *(source.length for source in sources))
        return [kinds[index % len(kinds)] for index in range(longest)] if kinds else []

    kinds, doubt = _entries(where, length, sources, read)
    if kinds == [value[index % len(value)] for index in range(len(kinds))]:
        return value, doubt
    return _like(value, kinds), doubt


def _bound(
    value: int, where: tuple[str, ...], sources: Sequence[Source], leads: Callable[[Source, int], bool]
) -> tuple[int, str]:
    """How many output layers, from the first on, are of the leading kind."""
    said = [(source, source.value(where)) for source in sources]
    kinds = [leads(source, bound if _is_number(bound) else value) for source, bound in said]
    if all(kinds):
        return max(value, len(kinds)), ""
    if sorted(kinds, reverse=True) == kinds:
        return sum(kinds), ""
    return kinds.index(
        False
    ), "the output's layers are not of one kind first and of another after; set to the first run"


def _trailing(value: int, where: tuple[str, ...], sources: Sequence[Source]) -> tuple[int, str]:
    before, doubt = _bound(value, where, sources, lambda source, last: source.index < source.length - last)
    if doubt:
        doubt = "the output's last layers are not alone in being of another kind; set to what follows the first run"
    return max(len(sources) - before, 0), doubt


def _broken_rhythms(
    holder: Config, inner: tuple[str, ...], path: tuple[str, ...], sources: Sequence[Source]
) -> Iterator[ConfigNote]:
    """Warn of keys that say "every n-th layer" where the output's layers do not keep step."""
    for key, value in holder.items():
        if not (_RHYTHM.search(key) and _OF_LAYERS.search(key)) or _is_idle(key, holder):
            continue
        name = ".".join((*path, *inner, key))
        moved = _out_of_step(key, value, holder, (*inner, key), sources)
        if moved:
            yield ConfigNote(
                name,
                f"{name}: {short(value)} states the kinds of layers by a rhythm that output layer {moved[0]} and "
                f"{len(moved) - 1} more do not keep; the model will treat them as another kind than their source did",
                warning=True,
            )


def _is_idle(key: str, holder: Config) -> bool:
    for trait, lists in _EXPLICIT:
        if trait.search(key):
            return any(holder.get(name) for name in lists)
    return False


def _out_of_step(key: str, value: Any, holder: Config, where: tuple[str, ...], sources: Sequence[Source]) -> list[int]:
    """The output layers whose kind by this rhythm is not what it was by their source's."""
    moved = []
    for index, source in enumerate(sources):
        theirs = source.value(where)
        theirs = value if theirs is None else theirs
        offset = holder.get(key.replace("period", "offset")) if "period" in key else None
        if _kind(value, index, offset) != _kind(theirs, source.index, offset):
            moved.append(index)
    return moved


def _kind(rhythm: Any, index: int, offset: Any) -> Any:
    if isinstance(rhythm, str):
        return rhythm[index % len(rhythm)] if rhythm else None
    if not _is_number(rhythm) or rhythm < 2:
        return None
    if _is_number(offset):
        return index % rhythm == offset % rhythm
    # Which layer of a period is the odd one differs between families, the first or the last: mind both.
    return (index % rhythm == 0, (index + 1) % rhythm == 0)
