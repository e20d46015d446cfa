"""Which tensors have one row a token: the input embeddings and the head, and whether the config ties them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from plait.structure.configs import Config, stated
from plait.structure.layers import locate
from plait.structure.parts import is_embedding_name

__all__ = ["declared_tie", "embedding_and_heads", "vocab_biases", "vocab_rows"]

Shapes = Mapping[str, tuple[int, ...]]
# Tables whose rows are not tokens: positions, BERT's token types, image patches.
_NOT_TOKENS = re.compile(
    r"position|(^|[._])pos(_|\.|$)|(^|\.)wpe(\.|$)|token_type|segment|patch|relative", re.IGNORECASE
)
# What may have as many rows by chance, in a tower: the three projections of a pooling head, say.
_NO_HEAD = re.compile(r"(^|[._])(vision|visual|image|attn|attention|in_proj)", re.IGNORECASE)


def embedding_and_heads(shapes: Shapes, config: Config | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split the matrices with one row a token into (input embeddings, heads), each in the order of `shapes`.

    They are the matrices outside the layers with `vocab_rows` rows. Those whose names say that they embed
    (`embed_tokens`, `wte`, `shared`, …) are embeddings, the rest heads. An encoder-decoder may have several
    embeddings (T5: `shared`, `encoder.embed_tokens`, `decoder.embed_tokens`).

    >>> embedding_and_heads({"wte.weight": (97, 8), "wpe.weight": (97, 8)}, {"vocab_size": 97})
    (('wte.weight',), ())
    """
    rows = vocab_rows(shapes, config)
    names = [name for name, shape in _tables(shapes).items() if shape[0] in rows]
    embeddings = tuple(name for name in names if is_embedding_name(name))
    return embeddings, tuple(name for name in names if not is_embedding_name(name) and not _NO_HEAD.search(name))


def vocab_rows(shapes: Shapes, config: Config | None) -> frozenset[int]:
    """The numbers of rows that token tables have: the config's `vocab_size`, where a tensor bears it out.

    Otherwise the most rows of any matrix outside the layers that is named like an embedding of tokens; where there
    is none, the commonest number of rows, the greatest of those equally common. Empty where no matrix qualifies.
    """
    tables = _tables(shapes)
    said = frozenset(stated(config, "vocab_size")) & {shape[0] for shape in tables.values()}
    if said or not tables:
        return said
    embedded = [shape[0] for name, shape in tables.items() if is_embedding_name(name)]
    if embedded:
        return frozenset({max(embedded)})
    tally = Counter(shape[0] for shape in tables.values())
    return frozenset({max(tally, key=lambda rows: (tally[rows], rows))})


def vocab_biases(shapes: Shapes, config: Config | None) -> tuple[str, ...]:
    """The biases outside the layers with one number a token, as `cls.predictions.bias` and GPT-J's `lm_head.bias`."""
    rows = vocab_rows(shapes, config)
    return tuple(
        name
        for name, shape in shapes.items()
        if len(shape) == 1 and shape[0] in rows and name.endswith("bias") and locate(name) is None
    )


def declared_tie(config: Config | None) -> bool | None:
    """`tie_word_embeddings` as the config states it, the top level before nested configs; None when it is silent.

    Silence is not False: what a model class does by default differs from family to family.
    """
    said = stated(config, "tie_word_embeddings")
    return bool(said[0]) if said else None


def _tables(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {
        name: shape
        for name, shape in shapes.items()
        if len(shape) == 2 and locate(name) is None and not _NOT_TOKENS.search(name)
    }
