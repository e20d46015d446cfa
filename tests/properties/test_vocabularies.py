"""Random vocabularies: overlaps, special tokens, holes, ghosts, padding; every row of the output is its token's."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import plait

TABLES = ("model.embed_tokens.weight", "lm_head.weight")
WORDS = tuple(f"w{i}" for i in range(9))
MARKS = tuple(f"<m{i}>" for i in range(4))
WEIGHTS = (0.5, 0.3, 0.2)


@dataclass(frozen=True)
class Model:
    """A vocabulary, and how many rows there are."""

    ids: dict[str, int]
    rows: int

    @property
    def length(self) -> int:
        return max(self.ids.values()) + 1

    def row(self, token: str) -> int | None:
        """The token's row, where it has one."""
        number = self.ids.get(token)
        return number if number is not None and number < self.rows else None


@st.composite
def models(draw):
    """A few words and special tokens under any numbers, with holes; rows for fewer (ghosts) or more (padding)."""
    words = draw(st.lists(st.sampled_from(WORDS), min_size=2, max_size=7, unique=True))
    marks = draw(st.lists(st.sampled_from(MARKS), max_size=3, unique=True))
    count = len(words) + len(marks)
    numbers = draw(st.permutations(range(count + draw(st.integers(0, 2)))))[:count]
    ids = dict(zip([*words, *marks], numbers, strict=True))
    return Model(ids, max(2, max(numbers) + 1 + draw(st.sampled_from((0, 0, 0, 3, -1)))))


def save(folder, model, arrays, write):
    write(folder, arrays, vocab_size=model.rows, tie_word_embeddings=False)
    added = [
        {"id": number, "content": token, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for token, number in sorted(model.ids.items(), key=lambda pair: pair[1])
        if token in MARKS
    ]
    words = {token: number for token, number in model.ids.items() if token in WORDS}
    about = {"version": "1.0", "model": {"type": "WordLevel", "vocab": words, "unk_token": min(words)}}
    text = json.dumps(about | {"added_tokens": added, "pre_tokenizer": {"type": "WhitespaceSplit"}})
    (folder / "tokenizer.json").write_text(text)


def tokens_of(folder):
    about = json.loads((folder / "tokenizer.json").read_text())
    return about["model"]["vocab"] | {one["content"]: one["id"] for one in about["added_tokens"]}


def seen(token, given, tables, base):
    """One model's row for a token: its own, or the base's, or the mean of those that have it, or zeros."""
    rows = [None if (at := model.row(token)) is None else table[at] for model, table in zip(given, tables, strict=True)]
    have = [row for row in rows if row is not None]
    stand = np.zeros(4) if not have else rows[0] if base and rows[0] is not None else np.mean(have, axis=0)
    return [stand if row is None else row for row in rows]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    given=st.lists(models(), min_size=2, max_size=3),
    source=st.sampled_from(["union", "base", "m1"]),
    base=st.booleans(),
    multiple=st.sampled_from([None, None, 8]),
)
def test_every_row_is_its_tokens(given, source, base, multiple, draw, write, place):
    root = place()
    arrays = [draw(seed, model.rows) for seed, model in enumerate(given)]
    for number, model in enumerate(given):
        save(root / f"m{number}", model, arrays[number], write)
    entries = [f"{{model: {root}/m{i}, parameters: {{weight: {WEIGHTS[i]}}}}}" for i in range(len(given))]
    named = f"{root}/m1" if source == "m1" else source
    padded = f", pad_to_multiple_of: {multiple}" if multiple else ""
    text = f"models: [{', '.join(entries)}]\nmerge_method: linear\ntokenizer: {{source: {named}{padded}}}\n"
    (root / "r.yml").write_text(text + (f"base_model: {root}/m0\n" if base else ""))
    plait.merge(root / "r.yml", root / "out", threads=1)
    made, ids = plait.load(root / "out"), tokens_of(root / "out")
    rows = json.loads((root / "out/config.json").read_text())["vocab_size"]
    assert {len(made[table]) for table in TABLES} == {rows}
    assert rows > max(ids.values())
    assert len(set(ids.values())) == len(ids)
    if multiple:
        assert rows % multiple == 0
    donor = given[1] if source == "m1" else given[0]
    assert donor.ids.items() <= ids.items(), "the numbers of whose tokenizer it is stay"
    everyone = {token for model in given for token in model.ids if model is donor or model.row(token) is not None}
    assert ids.keys() == (everyone if source == "union" else donor.ids.keys())
    total = sum(WEIGHTS[: len(given)])
    for table in TABLES:
        tables = [one[table] for one in arrays]
        for token, number in ids.items():
            wanted = sum(w * row for w, row in zip(WEIGHTS, seen(token, given, tables, base), strict=False)) / total
            np.testing.assert_allclose(made[table][number], wanted, atol=1e-5, err_msg=f"{table}: {token}")
        for number in set(range(rows)) - set(ids.values()):
            if all(number < model.rows and number not in model.ids.values() for model in given):
                wanted = sum(w * one[number] for w, one in zip(WEIGHTS, tables, strict=False)) / total
                np.testing.assert_allclose(made[table][number], wanted, atol=1e-5, err_msg=f"{table}: row {number}")
    assert all(np.isfinite(array).all() for array in made.values())
    if rows == donor.rows:
        return
    assert rows > donor.rows or multiple or source == "union" or donor.rows < donor.length
