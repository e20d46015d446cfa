"""Real tokenizers made on the spot, and tiny models that have them."""

from __future__ import annotations

import json
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

WIDTH = 8
TEXTS = {
    "a": ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog"],
    "b": ["le chat est sur la table", "le chien est dans la rue", "un chat et un chien"],
}


def trained(kind: str, corpus: str, size: int, special: tuple[str, ...] = ("<s>", "</s>")) -> Tokenizer:
    """Train a tokenizer of a kind on a few sentences; the same each time, which training itself is not."""
    return Tokenizer.from_str(_trained(kind, corpus, size, special))


@cache
def _trained(kind: str, corpus: str, size: int, special: tuple[str, ...]) -> str:
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer: Any = trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), show_progress=False)
    elif kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=special[0]))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(special), show_progress=False)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=size, special_tokens=list(special), unk_token=special[0], show_progress=False
        )
    tokenizer.train_from_iterator(TEXTS[corpus], trainer)
    return str(tokenizer.to_str())


@pytest.fixture
def tokenizer():
    """Train a tokenizer: kind, corpus ("a" or "b"), size."""
    return trained


@pytest.fixture
def special():
    """Make a special token."""
    return lambda text: AddedToken(text, special=True, normalized=False)


@pytest.fixture
def write_model(tmp_path: Path, write_llama):
    """Write a Llama with a tokenizer; `rows` of its embedding and head, default one a token."""

    def write(
        name: str,
        seed: int,
        tokenizer: Tokenizer,
        *,
        rows: int | None = None,
        tied: bool = False,
        dtype: Any = np.float32,
        **files: Any,
    ) -> Path:
        rng = np.random.default_rng(seed + 1000)
        count = rows or max(tokenizer.get_vocab().values()) + 1

        def change(arrays: dict[str, Any]) -> None:
            for table in ("model.embed_tokens.weight", "lm_head.weight"):
                arrays[table] = rng.standard_normal((count, WIDTH)).astype(np.float32)
            if tied:
                del arrays["lm_head.weight"]
            arrays.update({key: value.astype(dtype) for key, value in arrays.items()})

        folder: Path = write_llama(name, seed, change=change)
        config = json.loads((folder / "config.json").read_text())
        config |= {"vocab_size": count, "tie_word_embeddings": tied, **files.pop("config", {})}
        (folder / "config.json").write_text(json.dumps(config))
        tokenizer.save(str(folder / "tokenizer.json"))
        for file, data in files.items():
            (folder / f"{file}.json").write_text(json.dumps(data))
        return folder

    return write


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch):
    """Write an indented recipe beside the models, and work in its folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        (tmp_path / "r.yml").write_text(textwrap.dedent(text))
        return "r.yml"

    return write


@pytest.fixture
def arrays():
    """Read a model's weights."""
    return lambda folder: load_file(Path(folder) / "model.safetensors")
