"""Layers, read off the numbered segments of tensor names: `model.layers.11.mlp.up_proj.weight` is in layer 11."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plait.structure.configs import Config, layer_counts, stated

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["LayerName", "Stack", "find_stacks", "locate", "main_stacks", "relocate"]

_NUMBER = re.compile(r"(?:^|\.)(0|[1-9][0-9]*)(?=\.|$)")
_OTHER_MODALITY = re.compile(r"vision|visual|image|audio|speech|video|(^|[._])vit([._]|$)")
# The keys under which configs state layers for predicting further tokens; checkpoints number them after the last layer.
_EXTRA_LAYERS = ("num_nextn_predict_layers", "num_mtp_layers")


@dataclass(frozen=True, slots=True)
class LayerName:
    """A tensor name cut at its first numbered segment: `prefix.index.suffix`. `prefix` and `suffix` may be ""."""

    prefix: str
    index: int
    suffix: str


@dataclass(frozen=True, slots=True)
class Stack:
    """A run of numbered modules under one prefix: `prefix.0`, `prefix.1`, … `prefix.{length - 1}`."""

    prefix: str
    length: int
    """One more than the greatest index."""
    indices: tuple[int, ...]
    """The indices that have tensors, ascending; fewer than `length` where there are gaps."""
    tensors: int
    """How many tensors the stack has, over all its indices."""

    @property
    def gaps(self) -> tuple[int, ...]:
        """The indices below `length` that have no tensor."""
        present = set(self.indices)
        return tuple(index for index in range(self.length) if index not in present)


def locate(name: str) -> LayerName | None:
    """Cut a name at its first numbered segment, or None where it has none.

    Numbered segments after the first (experts, blocks within a layer) belong to the suffix.

    >>> locate("model.layers.11.mlp.experts.3.w1.weight")
    LayerName(prefix='model.layers', index=11, suffix='mlp.experts.3.w1.weight')
    >>> locate("model.norm.weight")
    """
    found = _NUMBER.search(name)
    if found is None:
        return None
    return LayerName(name[: found.start()], int(found[1]), name[found.end() + 1 :])


def relocate(name: str, index: int) -> str:
    """The name of the same tensor in layer `index`.

    Raises:
        ValueError: the name has no numbered segment, or the index is negative.

    >>> relocate("model.layers.1.mlp.experts.1.w1.weight", 7)
    'model.layers.7.mlp.experts.1.w1.weight'
    """
    found = _NUMBER.search(name)
    if found is None:
        msg = f"{name!r} is in no layer: none of its dotted segments is a number."
        raise ValueError(msg)
    if index < 0:
        msg = f"{name!r} can't be moved to layer {index}: layers are numbered from 0."
        raise ValueError(msg)
    return f"{name[: found.start(1)]}{index}{name[found.end(1) :]}"


def find_stacks(names: Iterable[str]) -> tuple[Stack, ...]:
    """Every prefix that is followed by a number, in the order of first appearance.

    >>> find_stacks(["h.0.ln.weight", "h.2.ln.weight", "wte.weight"])
    (Stack(prefix='h', length=3, indices=(0, 2), tensors=2),)
    """
    seen: dict[str, dict[int, int]] = {}
    for name in names:
        found = _NUMBER.search(name)
        if found is not None:
            tally = seen.setdefault(name[: found.start()], {})
            index = int(found[1])
            tally[index] = tally.get(index, 0) + 1
    return tuple(
        Stack(prefix, max(tally) + 1, tuple(sorted(tally)), sum(tally.values())) for prefix, tally in seen.items()
    )


def main_stacks(stacks: Sequence[Stack], config: Config | None) -> tuple[Stack, ...]:
    """The stack of layers that slices speak of: one, or () for none, or several that fit equally well.

    A stack fits when its length is a number of layers that the config states (`layer_counts`); where it states
    none, every stack does. Of those that fit, stacks of vision or audio parts give way to others, stacks with gaps
    to those without, and stacks of small modules (a convolution and its norm, a two-part classifier) to stacks
    with over four times their tensors a layer. So () where layers are shared (ALBERT), and two where an encoder and
    a decoder are equally long (T5): then a caller must refuse slices and name both.
    """
    counts = {stated_count.count for stated_count in layer_counts(config)}
    extra = {number for key in _EXTRA_LAYERS for number in stated(config, key) if isinstance(number, int)}
    lengths = counts | {count + more for count in counts for more in extra}
    fitting = [stack for stack in stacks if not counts or stack.length in lengths]
    language = [stack for stack in fitting if not _OTHER_MODALITY.search(stack.prefix)] or fitting
    whole = [stack for stack in language if not stack.gaps] or language
    most = max((stack.tensors / len(stack.indices) for stack in whole), default=0.0)
    return tuple(stack for stack in whole if 4 * stack.tensors / len(stack.indices) >= most)
