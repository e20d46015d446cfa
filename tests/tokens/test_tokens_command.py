"""`plait tokens` and `plait.tokens`."""

from __future__ import annotations

import json

from click.testing import CliRunner

import plait
from plait.cli import root


def test_every_difference_is_told(tokenizer, write_model, recipe, special):
    ours, theirs = tokenizer("bpe", "a", 60), tokenizer("bpe", "b", 50, ("</s>", "<s>"))
    ours.add_tokens(["<|x|>"])
    theirs.add_special_tokens([special("<|x|>"), special("<|y|>")])
    count = theirs.get_vocab_size()
    a = write_model("a", 1, ours, rows=ours.get_vocab_size() + 3, tokenizer_config={"eos_token": "</s>"})
    b = write_model("b", 2, theirs, rows=count - 1, tokenizer_config={"eos_token": {"content": "<|y|>"}})
    (b / "tokenizer.model").write_bytes(b"")
    report = plait.tokens([a, b])
    one, two = report.models
    assert (one.tokens, one.length, one.vocab_size) == (
        len(ours.get_vocab()),
        *[ours.get_vocab_size()] * 1,
        one.length + 3,
    )
    assert two.ghosts == ("<|y|>",)
    assert two.not_read == ("tokenizer.model",)
    assert set(one.rows.values()) == {one.length + 3}
    (found,) = report.differences
    assert set(found.only_first) == ours.get_vocab().keys() - theirs.get_vocab().keys()
    assert set(found.only_here) == theirs.get_vocab().keys() - ours.get_vocab().keys()
    assert found.other_number["<s>"] == (0, 1)
    assert found.other_kind == {"<|x|>": ("added", "special")}
    assert found.other_role == {"eos_token": ("</s>", "<|y|>")}
    told = CliRunner().invoke(root, ["tokens", str(a), str(b)])
    assert told.exit_code == 0
    for text in (
        "padding     3 rows",
        "no row for  1: '<|y|>'",
        "'<|x|>' added -> special",
        "not read    tokenizer.model",
    ):
        assert text in told.output
    data = json.loads(CliRunner().invoke(root, ["tokens", str(a), str(b), "--json"]).output)
    assert data["differences"][0]["other_number"]["<s>"] == [0, 1]


def test_the_same_vocabulary_is_said_to_be(tokenizer, write_model, recipe):
    a, b = (write_model(name, 1, tokenizer("wordpiece", "a", 60)) for name in "ab")
    assert plait.tokens([a, b]).differences[0].none
    assert "the same tokens, numbers and kinds" in CliRunner().invoke(root, ["tokens", str(a), str(b)]).output


def test_a_model_without_a_tokenizer_is_told(write_llama):
    assert "no tokenizer that can be read" in CliRunner().invoke(root, ["tokens", str(write_llama("a", 1))]).output
