"""Pain 3: tokenizers, vocabularies and embedding rows that do not fit each other."""

from __future__ import annotations

import numpy as np
import pytest

import plait

LINEAR = "models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 0.5}\n"
TABLES = ("model.embed_tokens.weight", "lm_head.weight")


@pytest.fixture
def pair(model, tokenizer):
    """Two models whose tokenizers share some tokens; the second has a chat token and rows of padding."""
    model("a", vocab_size=len(tokenizer("a", "a").get_vocab()))
    theirs = tokenizer("b", "b", size=50, added=("<|im_end|>",))
    model("b", seed=1, vocab_size=len(theirs.get_vocab()) + 5)


def holds(folder, config_of, vocabulary):
    """One invariant: config vocabulary = embedding rows = head rows >= tokenizer length."""
    arrays = plait.load(folder)
    assert {arrays[table].shape[0] for table in TABLES} == {config_of(folder)["vocab_size"]}
    assert max(vocabulary(folder).values()) < config_of(folder)["vocab_size"]


def test_without_a_section_both_sizes_and_the_remedy_are_told(pair, cli, tmp_path):
    """mk#489, fusion_bench#215: it loaded with a size mismatch, and was garbage."""
    done = cli("merge", "out", says=LINEAR)
    assert done.code == 2
    rows = [len(plait.load(name)["lm_head.weight"]) for name in "ab"]
    assert f"lm_head.weight is [{rows[0]}, 16] in a, [{rows[1]}, 16] in b" in done.err
    assert "tokenizer_source: union" in done.err
    assert not list(tmp_path.glob("out*"))


def test_the_difference_is_shown_token_by_token(pair, cli):
    shown = cli("tokens", "a", "b")
    assert shown.code == 0
    assert "<|im_end|>" in shown.out
    assert "rows" in shown.out


@pytest.mark.parametrize("source", ["union", "base", "b"])
def test_every_row_is_its_tokens(source, pair, cli, config_of, vocabulary, logits):
    """mk#47: "output of the entire model becomes garbled"; mk#425, mk#469, mk#428."""
    done = cli("merge", "out", says=LINEAR + f"base_model: a\ntokenizer_source: {source}\n")
    assert done.code == 0, done.err
    holds("out", config_of, vocabulary)
    mine, theirs, made = (vocabulary(folder) for folder in ("a", "b", "out"))
    wanted = {"union": mine.keys() | theirs.keys(), "base": mine.keys(), "b": theirs.keys()}[source]
    assert made.keys() == wanted
    for table in TABLES:
        one, two, out = (plait.load(folder)[table] for folder in ("a", "b", "out"))
        for token, row in made.items():
            ones = one[mine[token]] if token in mine else two[theirs[token]]
            twos = two[theirs[token]] if token in theirs else ones
            np.testing.assert_allclose(out[row], (ones + twos) / 2, atol=1e-6, err_msg=token)
    logits("out")


def test_ghost_tokens_stay_and_the_ledger_has_their_rows(cli, model, tokenizer, config_of, vocabulary):
    """Naphula/model_tools: "Ghost Tokens ... the entire merge crashes"; mk#185, mk#342."""
    count = len(tokenizer("a", "a", added=("<|ghost|>",)).get_vocab())
    model("a", vocab_size=count - 1)
    tokenizer("b", "a")
    model("b", seed=1, vocab_size=count - 1)
    text = LINEAR + "tokenizer_source: base\n"
    plan = cli("plan", "--json", says=text).data
    assert {entry["what"] for entry in plan["ledger"]["generated"]} == {"1 row that no input has"}
    assert cli("merge", "out", says=text).code == 0
    assert "<|ghost|>" in vocabulary("out")
    assert not plait.load("out")["lm_head.weight"][count - 1].any()
    holds("out", config_of, vocabulary)


def test_rows_of_padding_are_kept_where_nothing_is_asked(cli, model, tokenizer, config_of, vocabulary):
    """mk#425: Qwen2.5's 152064 rows became 151665, "annoying for compatibility"."""
    for seed, name in enumerate("ab"):
        count = len(tokenizer(name, "a").get_vocab())
        model(name, seed=seed, vocab_size=count + 9)
    assert cli("merge", "out", says=LINEAR + "tokenizer_source: base\n").code == 0
    assert config_of("out")["vocab_size"] == count + 9
    one, two, out = (plait.load(folder)["lm_head.weight"] for folder in ("a", "b", "out"))
    np.testing.assert_allclose(out[count:], (one[count:] + two[count:]) / 2, atol=1e-6)
    holds("out", config_of, vocabulary)
