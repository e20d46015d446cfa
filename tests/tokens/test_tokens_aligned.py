"""Merges of models whose tokenizers differ: rows follow their tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

import plait

TABLES = ("model.embed_tokens.weight", "lm_head.weight")
LINEAR = """\
merge_method: linear
parameters: {weight: 0.5}
models: [{model: a}, {model: b}]
"""


def _ids(folder):
    return Tokenizer.from_file(str(Path(folder) / "tokenizer.json")).get_vocab(with_added_tokens=True)


def _config(folder):
    return json.loads((Path(folder) / "config.json").read_text())


def _holds(folder, arrays):
    """One invariant: config vocabulary = embedding rows = head rows >= tokenizer length."""
    rows = {arrays(folder)[table].shape[0] for table in TABLES if table in arrays(folder)}
    assert rows == {_config(folder)["vocab_size"]}
    assert max(_ids(folder).values()) < min(rows)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_union_gives_every_token_its_own_rows(kind, tokenizer, write_model, recipe, arrays):
    a = write_model("a", 1, tokenizer(kind, "a", 60))
    b = write_model("b", 2, tokenizer(kind, "b", 60))
    plait.merge(recipe(LINEAR + "tokenizer_source: union\n"), "out")
    mine, theirs, made = _ids(a), _ids(b), _ids("out")
    assert made.keys() == mine.keys() | theirs.keys()
    assert mine.items() <= made.items(), "the donor's numbers stay"
    _holds("out", arrays)
    for table in TABLES:
        one, two, out = arrays(a)[table], arrays(b)[table], arrays("out")[table]
        for token, row in made.items():
            # A token that one model has alone stands for both; the mean of a row with itself is that row.
            ones = one[mine[token]] if token in mine else two[theirs[token]]
            twos = two[theirs[token]] if token in theirs else ones
            np.testing.assert_allclose(out[row], (ones + twos) / 2, atol=1e-6)


@pytest.mark.parametrize("source", ["base", "b"])
def test_the_output_has_the_tokenizer_that_is_asked_for(source, tokenizer, write_model, recipe, arrays):
    a, b = write_model("a", 1, tokenizer("bpe", "a", 60)), write_model("b", 2, tokenizer("bpe", "b", 50))
    plait.merge(recipe(LINEAR + f"tokenizer_source: {source}\n"), "out")
    own, other = (a, b) if source == "base" else (b, a)
    assert (Path("out") / "tokenizer.json").read_bytes() == (own / "tokenizer.json").read_bytes()
    _holds("out", arrays)
    mine, theirs = _ids(own), _ids(other)
    for table in TABLES:
        one, two, out = arrays(own)[table], arrays(other)[table], arrays("out")[table]
        for token, row in mine.items():
            twos = two[theirs[token]] if token in theirs else one[row]
            np.testing.assert_allclose(out[row], (one[row] + twos) / 2, atol=1e-6)


def test_delta_methods_see_no_difference_where_a_model_lacks_a_token(tokenizer, write_model, recipe, arrays):
    a, b = write_model("a", 1, tokenizer("bpe", "a", 60)), write_model("b", 2, tokenizer("bpe", "b", 50))
    plait.merge(recipe(LINEAR.replace("linear", "task_arithmetic") + "base_model: a\ntokenizer_source: union\n"), "out")
    mine, theirs, made = _ids(a), _ids(b), _ids("out")
    one, two, out = (arrays(folder)[TABLES[0]] for folder in (a, b, "out"))
    for token in mine.keys() - theirs.keys():
        assert np.array_equal(out[made[token]], one[mine[token]])
    for token in theirs.keys() - mine.keys():
        assert np.array_equal(out[made[token]], two[theirs[token]])


def test_a_row_that_two_others_have_is_their_mean_without_a_base_and_the_bases_with_one(
    tokenizer, write_model, recipe, arrays
):
    a = write_model("a", 1, tokenizer("bpe", "b", 50))
    b = write_model("b", 2, tokenizer("bpe", "b", 50))
    c = write_model("c", 3, tokenizer("bpe", "a", 40))
    text = LINEAR.replace("{model: b}", "{model: b}, {model: c}") + "tokenizer_source: union\n"
    plait.merge(recipe(text), "mean")
    plait.merge(recipe(text + "base_model: b\n"), "based")
    mine, theirs, made = _ids(a), _ids(c), _ids("mean")
    one, two = arrays(a)[TABLES[0]], arrays(b)[TABLES[0]]
    lone = sorted(mine.keys() - theirs.keys())
    assert lone
    for token in lone:
        i = mine[token]
        np.testing.assert_allclose(arrays("mean")[TABLES[0]][made[token]], (one[i] + two[i]) / 2, atol=1e-6)
        wanted = (one[i] + 2 * two[i]) / 3
        np.testing.assert_allclose(arrays("based")[TABLES[0]][_ids("based")[token]], wanted, atol=1e-6)


def test_rules_for_tokens(tokenizer, write_model, recipe, arrays):
    a, b = write_model("a", 1, tokenizer("bpe", "a", 60)), write_model("b", 2, tokenizer("bpe", "b", 50))
    text = """\
tokenizer:
  source: union
  tokens:
    <s>: {source: b, force: true}
    </s>: {source: b}
    Ġchien: {source: {kind: model_token, model: a, token: Ġdog}}
    Ġcat: {source: {kind: model_token, model: b, token_id: 3}, force: true}
    <|new|>: {source: {kind: zero}}
"""
    plait.merge(recipe(LINEAR + text), "out")
    mine, theirs, made = _ids(a), _ids(b), _ids("out")
    one, two, out = (arrays(folder)[TABLES[0]] for folder in (a, b, "out"))
    assert np.array_equal(out[made["<s>"]], two[theirs["<s>"]])
    np.testing.assert_allclose(out[made["</s>"]], (one[mine["</s>"]] + two[theirs["</s>"]]) / 2, atol=1e-6)
    wanted = (one[mine["Ġdog"]] + two[theirs["Ġchien"]]) / 2
    np.testing.assert_allclose(out[made["Ġchien"]], wanted, atol=1e-6)
    assert np.array_equal(out[made["Ġcat"]], two[3])
    assert not out[made["<|new|>"]].any()
    _holds("out", arrays)


def test_padding_rows_ghost_tokens_and_holes_survive(tokenizer, write_model, recipe, arrays, special):
    ours, theirs = tokenizer("bpe", "a", 60), tokenizer("bpe", "a", 60)
    theirs.add_special_tokens([special("<|im_end|>")])
    count = ours.get_vocab_size()
    a = write_model("a", 1, ours, rows=count + 8)
    b = write_model("b", 2, theirs, rows=count + 8)
    plait.merge(recipe(LINEAR + "tokenizer_source: base\n"), "same")
    one, two = arrays(a)[TABLES[0]], arrays(b)[TABLES[0]]
    out = arrays("same")[TABLES[0]]
    assert out.shape[0] == count + 8
    np.testing.assert_allclose(out[count + 1 :], (one[count + 1 :] + two[count + 1 :]) / 2, atol=1e-6)
    assert np.array_equal(out[count], one[count]), "b's row there is a token's, and no padding"
    plait.merge(recipe(LINEAR + "tokenizer_source: union\n"), "union")
    assert _ids("union")["<|im_end|>"] == count
    assert arrays("union")[TABLES[0]].shape[0] == count + 8
    assert np.array_equal(arrays("union")[TABLES[0]][count], two[count])
    _holds("union", arrays)


def test_a_token_of_the_donor_without_a_row_gets_one(tokenizer, write_model, recipe, arrays, special):
    ours = tokenizer("bpe", "a", 60)
    count = ours.get_vocab_size()
    ours.add_special_tokens([special("<|ghost|>"), special("<|both|>")])
    theirs = tokenizer("bpe", "a", 60)
    theirs.add_special_tokens([special("<|both|>")])
    write_model("a", 1, ours, rows=count)
    b = write_model("b", 2, theirs)
    path = recipe(LINEAR + "tokenizer_source: base\n")
    plait.merge(path, "out")
    out = arrays("out")[TABLES[0]]
    assert not out[count].any()
    assert np.array_equal(out[count + 1], arrays(b)[TABLES[0]][count])
    assert any("1 tokens have no row in any input" in str(warning) for warning in plait.plan(path).warnings)
    _holds("out", arrays)


def test_padding_to_a_multiple_gives_the_mean_of_the_rows(tokenizer, write_model, recipe, arrays):
    a, b = write_model("a", 1, tokenizer("bpe", "a", 60)), write_model("b", 2, tokenizer("bpe", "b", 50))
    text = LINEAR + "tokenizer: {source: union, pad_to_multiple_of: 64}\n"
    plait.merge(recipe(text), "out")
    count = len(_ids("out"))
    out = arrays("out")[TABLES[0]]
    assert count % 64
    assert out.shape[0] == -(-count // 64) * 64
    np.testing.assert_allclose(out[count:], np.broadcast_to(out[:count].mean(0), out[count:].shape), atol=1e-6)
    _holds("out", arrays)
    assert a != b


def test_numbers_of_special_tokens_follow(tokenizer, write_model, recipe, arrays):
    ours = tokenizer("bpe", "a", 60)
    theirs = tokenizer("bpe", "b", 50, ("<pad>", "</s>", "<s>"))
    write_model("a", 1, ours, config={"eos_token_id": 1, "bos_token_id": 0}, generation_config={"eos_token_id": [1, 0]})
    write_model("b", 2, theirs)
    plait.merge(recipe(LINEAR + "tokenizer_source: b\n"), "out")
    assert _config("out")["eos_token_id"] == 1
    assert _config("out")["bos_token_id"] == 2
    assert json.loads(Path("out/generation_config.json").read_text())["eos_token_id"] == [1, 2]


def test_tied_and_untied(tokenizer, write_model, recipe, arrays):
    a = write_model("a", 1, tokenizer("bpe", "a", 60), tied=True)
    b = write_model("b", 2, tokenizer("bpe", "b", 50))
    plait.merge(recipe(LINEAR + "tokenizer_source: union\n"), "out")
    mine, theirs, made = _ids(a), _ids(b), _ids("out")
    token = next(token for token in theirs if token not in mine)
    out = arrays("out")
    for table in TABLES:
        assert np.array_equal(out[table][made[token]], arrays(b)[table][theirs[token]])
    assert _config("out")["tie_word_embeddings"] is False
    _holds("out", arrays)


def test_same_bytes_whatever_the_threads_and_after_a_resume(tokenizer, write_model, recipe):
    write_model("a", 1, tokenizer("bpe", "a", 60))
    write_model("b", 2, tokenizer("bpe", "b", 50))
    path = recipe(
        LINEAR.replace("linear", "slerp").replace("{weight", "{t") + "base_model: a\ntokenizer_source: union\n"
    )
    plait.merge(path, "one", threads=1)
    plait.merge(path, "three", threads=3)
    plait.merge("one/plait.lock", "again")
    bytes_of = [(Path(out) / "model.safetensors").read_bytes() for out in ("one", "three", "again")]
    assert bytes_of[0] == bytes_of[1] == bytes_of[2]


def test_the_output_loads_in_transformers(tokenizer, write_model, recipe):
    import torch
    import transformers

    write_model("a", 1, tokenizer("bpe", "a", 60))
    write_model("b", 2, tokenizer("bpe", "b", 50))
    plait.merge(recipe(LINEAR + "tokenizer_source: union\n"), "out")
    model, told = transformers.AutoModelForCausalLM.from_pretrained("out", output_loading_info=True)
    assert not any(told.values())
    words = transformers.PreTrainedTokenizerFast(tokenizer_file="out/tokenizer.json")
    ids = words("the cat", return_tensors="pt").input_ids
    assert words.decode(ids[0]) == "the cat"
    assert torch.isfinite(model(ids).logits).all()
