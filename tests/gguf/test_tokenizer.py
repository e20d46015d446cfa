"""Tokenizers made from metadata, and metadata made from tokenizers; sentencepiece's beside byte-level ones."""

import json
import struct

import pytest
from tokenizers import Tokenizer

import plait
from plait.checkpoint.gguf.splits import split_named, split_of
from plait.errors import CheckpointError
from plait.export.pieces import read_pieces
from plait.export.tokens import tokens_of

# Worked by hand: ▁a scores above ab, so that " ab" is ▁a b, and not ▁ ab; bb is joined last.
PIECES = [
    ("<unk>", 0.0, 2),
    ("<s>", 0.0, 3),
    ("</s>", 0.0, 3),
    ("<0x41>", 0.0, 6),
    ("<0xC3>", 0.0, 6),
    ("<0xA9>", 0.0, 6),
]
PIECES += [("▁a", 0.0, 1), ("ab", -1.0, 1), ("bb", -2.0, 1), ("▁", -3.0, 1), ("a", -4.0, 1), ("b", -5.0, 1)]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def field(number, value):
    if isinstance(value, bytes):
        return bytes([number << 3 | 2, len(value)]) + value
    return bytes([number << 3, value])


@pytest.fixture
def model_file(tmp_path):
    """Write a sentencepiece model as its protocol buffer has it."""

    def write(kind=2, prefix=1):
        raw = b""
        for text, score, of in PIECES:
            raw += field(1, field(1, text.encode()) + bytes([2 << 3 | 5]) + struct.pack("<f", score) + field(3, of))
        raw += field(2, field(3, kind)) + field(3, field(3, prefix))
        (tmp_path / "tokenizer.model").write_bytes(raw)
        return tmp_path / "tokenizer.model"

    return write


def test_pieces_of_a_sentencepiece_model(model_file):
    pieces, prefixed = read_pieces(model_file())
    assert [(piece.text, piece.score, piece.kind) for piece in pieces] == PIECES
    assert prefixed
    assert not read_pieces(model_file(prefix=0))[1]
    with pytest.raises(CheckpointError, match="not a sentencepiece model of kind BPE"):
        read_pieces(model_file(kind=1))
    file = model_file()
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="not a sentencepiece model"):
        read_pieces(file)


def add(tokens):
    """Return what writes such tokens into a GGUF file."""

    def change(writer):
        writer.add_tokenizer_model(tokens.model)
        writer.add_token_list(tokens.texts)
        writer.add_token_types(tokens.kinds)
        writer.add_token_scores(tokens.scores)
        writer.add_add_bos_token(tokens.begins is not False)
        writer.add_add_space_prefix(bool(tokens.prefixed))
        for role, number in tokens.ids.items():
            writer.add_uint32(f"tokenizer.ggml.{role}_token_id", number)

    return change


def built(write_gguf, tokens):
    write_gguf(change=add(tokens))
    return Tokenizer.from_str(plait.inspect("model.gguf").texts["tokenizer.json"])


@pytest.mark.parametrize("prefix", [0, 1])
def test_sentencepiece_there_and_back(model_file, write_gguf, prefix):
    (folder := model_file(prefix=prefix)).parent.joinpath("tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    files = {name: folder.parent / name for name in ("tokenizer.model", "tokenizer_config.json")}
    tokens = tokens_of(files, {}, {"vocab_size": 40, "eos_token_id": 2}, "here")
    assert tokens.ids == {"bos": 1, "eos": 2}
    assert (tokens.texts[39], tokens.kinds[39]) == ("[PAD39]", 5)
    for file in files.values():
        file.unlink()
    read = built(write_gguf, tokens)
    first = ["<s>", "▁a"] if prefix else ["<s>", "ab"]
    assert read.encode("ab").tokens == [*first, *(["b"] if prefix else [])]
    assert read.encode("bb ab", add_special_tokens=False).tokens == [*(["▁"] if prefix else []), "bb", "▁a", "b"]
    assert read.encode("Aé", add_special_tokens=False).tokens[-3:] == ["<0x41>", "<0xC3>", "<0xA9>"]
    assert read.decode(read.encode("ab Aé").ids) == "ab Aé"
    assert read.get_vocab_size() == len(PIECES)
    # from the tokenizer.json that was made, the same is written
    data = read.to_str()
    again = tokens_of({}, {"tokenizer.json": data}, {"vocab_size": 40, "eos_token_id": 2, "bos_token_id": 1}, "here")
    assert again.texts == tokens.texts
    assert again.kinds == tokens.kinds
    assert (again.begins, bool(again.prefixed)) == (True, bool(prefix))
    second = built(write_gguf, again)
    for text in ("ab", "bb ab", "abb a b", "Aé ab</s>a"):
        assert second.encode(text).ids == read.encode(text).ids


def test_files_beside_the_model_come_first(write_gguf, model_file, tmp_path):
    write_gguf(change=lambda writer: writer.add_tokenizer_model("bert"))
    opened = plait.inspect("model.gguf")
    assert not opened.texts
    assert any("of kind 'bert', which is not made from metadata" in note for note in opened.notes)
    (tmp_path / "tokenizer.json").write_text("{}")
    opened = plait.inspect("model.gguf")
    assert not opened.texts
    assert any("the tokenizer is the one beside the file" in note for note in opened.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": ("a", "a"), "kinds": (1, 1)}, "not all different"),
        ({"texts": ("\udc80",), "kinds": (1,)}, "not valid UTF-8"),
        ({"model": "gpt2", "pre": "dbrx-9"}, "cuts text in a way ('dbrx-9') that is not known"),
        ({"model": "gpt2", "pre": "qwen2"}, "has no merges"),
        ({"scores": ()}, "has no scores"),
    ],
)
def test_metadata_that_does_not_suffice(write_gguf, change, message):
    found = {"model": "llama", "pre": "", "texts": ("a", "b"), "kinds": (1, 1), "scores": (0.0,)} | change

    def write(writer):
        writer.add_tokenizer_model(found["model"])
        writer.add_tokenizer_pre(found["pre"])
        writer.add_token_list([text.encode("utf-8", "surrogateescape") for text in found["texts"]])
        writer.add_token_types(found["kinds"])
        if found["scores"]:
            writer.add_token_scores(found["scores"])

    write_gguf(change=write)
    opened = plait.inspect("model.gguf")
    assert not opened.texts
    assert any(message in note and "tokenizer_source" in note for note in opened.notes)


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "tekken", "smollm", "gpt-2"])
def test_every_way_of_cutting_is_known_by_its_steps(name):
    split = split_named(name)
    data = {"pre_tokenizer": split.steps, "model": {"ignore_merges": split.whole_words}}
    assert split_of(json.loads(json.dumps(data))) == split
    data["model"]["ignore_merges"] = not split.whole_words
    assert split_of(data) is None
    data = {"pre_tokenizer": json.loads(json.dumps(split.steps)), "model": {"ignore_merges": split.whole_words}}
    last = data["pre_tokenizer"].get("pretokenizers", [data["pre_tokenizer"]])[-1]
    last["use_regex"] = not last["use_regex"]
    assert split_of(data) is None, "cut twice, or not at all"


def test_the_tokens_of_the_metadata_are_shown(model_file, write_gguf, tmp_path):
    tokens = tokens_of({"tokenizer.model": model_file()}, {}, {"vocab_size": 40}, "here")
    (tmp_path / "tokenizer.model").unlink()
    built(write_gguf, tokens)
    report = plait.tokens(["model.gguf"])
    assert str(len(PIECES)) in str(report)
