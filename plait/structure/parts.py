"""What a tensor is for, and how far from the input it lies, read off its name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from plait.structure.layers import Stack, locate

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Component", "component", "gradient_position", "is_embedding_name"]

Component = Literal["embeddings", "attention", "mlp", "norm", "head", "other"]

# Heads whose names have "embed" in them: GPT-NeoX, and the "unembedding" of interpretability code.
_HEAD_DESPITE_EMB = re.compile(r"embed(ding)?s?_out|output_embed|unembed")
_EMBEDDING = re.compile(r"emb|^wte$|^wpe$|^shared$|patch|^(cls|class|mask|dist|distillation)_token$")
# What comes before the first layer without being an embedding: front convolutions, norms on the embeddings.
_ENTRANCE = re.compile(r"^pre_layr?norm$|^ln_pre$|^conv\d?$|^stem$|^feature_(extractor|projection)$")
_NORM = re.compile(r"norm|^ln$|^ln_|_ln$|^ln\d")
_ATTENTION = re.compile(r"attn|attention|^(q|k|v|o|qkv|out)_proj$|^query_key_value$|^c_attn$")
_MLP = re.compile(
    r"mlp|feed_?forward|^ffn?(_|$)|ffn|experts?$|moe|densereludense|^intermediate$|^(dense_)?h_to_4h$|^dense_4h_to_h$|"
    r"^(gate|up|down|gate_up)_proj$|^c_fc$|^fc_?(in|out|\d)$|^w[123]$|^lin[12]$"
)
_HEAD = re.compile(
    r"head$|^heads?_|^cls$|^classifiers?$|^score$|^predictions?$|^qa_outputs$|^pooler$|^proj_out$|^output_projection$"
)


def is_embedding_name(name: str) -> bool:
    """Whether a segment of the name says that it embeds the input: `emb…`, `wte`, `wpe`, `shared`, `patch…`.

    >>> is_embedding_name("gpt_neox.embed_in.weight"), is_embedding_name("embed_out.weight")
    (True, False)
    """
    segments = name.lower().split(".")
    if any(_HEAD_DESPITE_EMB.search(segment) for segment in segments):
        return False
    return any(_EMBEDDING.search(segment) for segment in segments)


def gradient_position(name: str, stacks: Iterable[Stack]) -> float:
    """How far along the model a tensor lies, t in [0, 1]: where a gradient (a list of values) is read for it.

    A layer of a stack of n lies at index / (n - 1), so that the first value of a gradient belongs to the first
    layer and the last to the last; in a stack of one layer, at 1. Outside every stack, what comes before the first
    layer (embeddings, their norms, front convolutions) lies at 0, and all else (final norm, pooler, head) at 1:
    a gradient runs from the input to the very end of the model, so what follows the last layer takes the last
    value. Pass the stacks that are layers (`main_stacks`, or all that `find_stacks` has found): a tensor in
    a numbered module of no given stack, `classifier.0.weight` say, counts as outside.
    """
    place = locate(name)
    if place is not None:
        for stack in stacks:
            if stack.prefix == place.prefix:
                return place.index / (stack.length - 1) if stack.length > 1 else 1.0
    entrance = any(_ENTRANCE.search(segment) for segment in name.lower().split("."))
    return 0.0 if entrance or is_embedding_name(name) else 1.0


def component(name: str, shape: tuple[int, ...], vocab: int | None) -> Component:
    """What a tensor is for; "other" where its name does not tell (state space mixers, biases of position).

    Args:
        name: the tensor's name in the checkpoint.
        shape: its shape; a matrix outside the layers with `vocab` rows is of the embeddings or of the head.
        vocab: number of tokens, or None where it isn't known.
    """
    place = locate(name)
    segments = (place.suffix if place else name).lower().split(".")
    module = segments[-2] if len(segments) > 1 else segments[0]
    if len(shape) <= 1 and _NORM.search(module):
        return "norm"
    if place is None:
        return _outside(name, segments, shape, vocab)
    # The innermost telling segment decides: `attention.output.dense` and `mlp.experts` both end in something vague.
    for segment in reversed(segments):
        if _ATTENTION.search(segment):
            return "attention"
        if _MLP.search(segment):
            return "mlp"
    # BERT's second matrix of the feed-forward part is `output.dense`, directly under the layer.
    return "mlp" if segments[:2] == ["output", "dense"] else "other"


def _outside(name: str, segments: list[str], shape: tuple[int, ...], vocab: int | None) -> Component:
    if is_embedding_name(name):
        return "embeddings"
    rows_are_tokens = len(shape) == 2 and shape[0] == vocab
    if rows_are_tokens or _HEAD_DESPITE_EMB.search(name) or any(_HEAD.search(segment) for segment in segments):
        return "head"
    return "other"
