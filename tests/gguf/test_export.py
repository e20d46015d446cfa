"""`plait export --gguf`: what is written reads back bit by bit, and runs elsewhere."""

import json
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

import plait
from plait.checkpoint.gguf.splits import split_named
from plait.export import writing

BF16 = np.dtype("bfloat16")
TEXT = "hello world, 12345 isn't  the QUICK\n\n brown fox <|end|> é 日本 "


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def add_tokenizer():
    """Train a byte-level tokenizer of a few hundred tokens into a folder; returns their number."""

    def add(folder, name="llama-bpe"):
        split = split_named(name)
        tokenizer = Tokenizer(models.BPE(ignore_merges=split.whole_words))
        letters = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<|begin|>", "<|end|>"], initial_alphabet=letters, show_progress=False
        )
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.train_from_iterator(["hello hello world 12 the quick brown the brown isn't"] * 5, trainer)
        data = json.loads(tokenizer.to_str())
        data |= {
            "pre_tokenizer": split.steps,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        }
        data["normalizer"] = {"type": "NFC"} if split.nfc else None
        data["added_tokens"].append({**data["added_tokens"][0], "id": 299, "content": "<tool>", "special": False})
        data["model"]["vocab"]["<tool>"] = 299
        Path(folder, "tokenizer.json").write_text(json.dumps(data))
        said = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "chat_template": "{{ messages }}"}
        Path(folder, "tokenizer_config.json").write_text(json.dumps(said))
        return 300

    return add


@pytest.fixture
def model(tmp_path, write_llama, add_tokenizer):
    """A float32 Llama of 2 layers with a tokenizer; 310 rows for its 300 tokens."""

    def widen(arrays):
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            arrays[name] = np.random.default_rng(5).standard_normal((310, 8)).astype(np.float32)

    folder = write_llama("model", 1, change=widen)
    add_tokenizer(folder)
    change(folder, vocab_size=310, rope_theta=5e5)
    return folder


def change(folder, **settings):
    file = folder / "config.json"
    config = json.loads(file.read_text()) | settings
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def test_what_is_written_reads_back_bit_by_bit(model):
    made = plait.export_gguf(model)
    assert made.path == model / "model-F32.gguf"
    read, own = plait.load(made.path), plait.load(model)
    assert read.keys() == own.keys()
    for name, array in own.items():
        np.testing.assert_array_equal(read[name], array, name)
    config = json.loads((model / "config.json").read_text())
    back = plait.inspect(made.path).config
    assert {key: back[key] for key in config if key in back} == config


def test_the_file_is_what_llama_cpp_expects(model):
    """Names, order of rows and metadata, told apart by the gguf package alone."""
    reader = gguf.GGUFReader(plait.export_gguf(model, "m.gguf", kind="bf16").path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    own = plait.load(model)
    query = own["model.layers.1.self_attn.q_proj.weight"]
    stored = gguf.dequantize(tensors["blk.1.attn_q.weight"].data, gguf.GGMLQuantizationType.BF16)
    expected = query.reshape(2, 2, 2, 8).swapaxes(1, 2).reshape(8, 8)
    np.testing.assert_array_equal(stored, expected.astype(BF16).astype(np.float32))
    assert tensors["blk.0.attn_norm.weight"].tensor_type == gguf.GGMLQuantizationType.F32
    said = {key: field.contents() for key, field in reader.fields.items()}
    assert said["general.architecture"] == "llama"
    assert said["llama.rope.freq_base"] == 5e5
    assert (said["llama.attention.head_count"], said["llama.attention.head_count_kv"]) == (2, 1)
    assert (said["llama.vocab_size"], said["llama.rope.dimension_count"], said["general.file_type"]) == (310, 4, 32)
    assert (said["tokenizer.ggml.model"], said["tokenizer.ggml.pre"]) == ("gpt2", "llama-bpe")
    assert said["tokenizer.chat_template"] == "{{ messages }}"
    assert (said["tokenizer.ggml.bos_token_id"], said["tokenizer.ggml.eos_token_id"]) == (0, 1)
    assert said["tokenizer.ggml.tokens"][309] == "[PAD309]"
    assert [said["tokenizer.ggml.token_type"][i] for i in (0, 2, 299, 309)] == [3, 1, 4, 5]


@pytest.fixture
def wide(write_plain, add_tokenizer, tmp_path):
    """A bfloat16 Llama with heads of 64, and a tokenizer; returns its arrays."""
    own = write_plain("wide")
    rows = np.concatenate([own["model.embed_tokens.weight"]] * 8)
    own |= {"model.embed_tokens.weight": rows, "lm_head.weight": rows * 2}
    save_file(own, tmp_path / "wide/model.safetensors")
    change(tmp_path / "wide", vocab_size=len(rows))
    add_tokenizer(tmp_path / "wide")
    return own


def test_eight_bits_where_rows_are_whole_blocks(wide):
    made = plait.export_gguf("wide", "w.gguf", kind="q8_0", threads=2)
    assert {t.tensor_type.name for t in gguf.GGUFReader(made.path).tensors} == {"Q8_0", "F32"}
    for name, array in plait.load("w.gguf").items():
        wanted = wide[name].astype(np.float32)
        if wanted.ndim > 1:
            blocks = wanted.reshape(-1, 32)
            assert (np.abs(array.reshape(-1, 32) - blocks).max(1) <= np.abs(blocks).max(1) / 225).all(), name
        else:
            np.testing.assert_array_equal(array, wanted)
    first = made.path.read_bytes()
    plait.export_gguf("wide", "w.gguf", kind="q8_0", threads=1, overwrite=True)
    assert made.path.read_bytes() == first, "whatever the threads"


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "tekken", "smollm", "gpt-2"])
def test_the_tokenizer_comes_back(model, add_tokenizer, tmp_path, name):
    add_tokenizer(model, name)
    plait.export_gguf(model, "m.gguf")
    (tmp_path / "r.yml").write_text("models: [{model: m.gguf}]\nmerge_method: passthrough\n")
    plait.merge("r.yml", "out")
    own, back = (Tokenizer.from_file(f"{folder}/tokenizer.json") for folder in (model, "out"))
    assert back.get_vocab(with_added_tokens=True) == own.get_vocab(with_added_tokens=True)
    text = TEXT + "<tool>"
    assert back.encode(text).ids == own.encode(text).ids
    assert back.decode(back.encode(text).ids) == own.decode(own.encode(text).ids)
    said = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert (said["bos_token"], said["eos_token"], said["chat_template"]) == ("<|begin|>", "<|end|>", "{{ messages }}")


def test_a_file_made_from_a_gguf_file_says_the_same(model):
    plait.export_gguf(model, "one/m.gguf")
    plait.export_gguf("one/m.gguf", "two/m.gguf")
    one, two = (gguf.GGUFReader(f"{folder}/m.gguf") for folder in ("one", "two"))
    for key, field in one.fields.items():
        assert two.fields[key].contents() == field.contents(), key
    assert Path("one/m.gguf").read_bytes() == Path("two/m.gguf").read_bytes()
    assert one.fields["tokenizer.ggml.add_bos_token"].contents() is False, "what llama.cpp would do by itself"


def test_the_template_of_a_gguf_file_is_among_those_that_auto_chooses_from(model, tmp_path):
    for name in ("m.gguf", "n.gguf"):
        plait.export_gguf(model, name)
    config = model / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": "{{ other }}"}))
    listed = "{model: model}, {model: m.gguf}, {model: n.gguf}"
    (tmp_path / "r.yml").write_text(
        f"models: [{listed}]\nmerge_method: linear\nparameters: {{weight: 0.5}}\nchat_template: auto\n"
    )
    plait.merge("r.yml", "out")
    assert json.loads((tmp_path / "out/tokenizer_config.json").read_text())["chat_template"] == "{{ messages }}"


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_merge_runs_in_transformers_as_gguf_with_equal_logits(kind, add_tokenizer, tmp_path):
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    cls = {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config}[kind]
    config = cls(
        vocab_size=304, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=kind == "qwen2",
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        made = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        made.save_pretrained(tmp_path / name)
        add_tokenizer(tmp_path / name, "llama-bpe" if kind == "llama" else "qwen2")
    (tmp_path / "r.yml").write_text(
        "models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 0.5}\n"
    )
    plait.merge("r.yml", "out")
    plait.export_gguf("out", "out.gguf")
    load = transformers.AutoModelForCausalLM.from_pretrained
    ids = torch.tensor([[5, 7, 100, 250, 3]])
    with torch.no_grad():
        one = load("out", dtype=torch.float32)(ids).logits
        other = load(tmp_path, gguf_file="out.gguf", dtype=torch.float32)(ids).logits
    torch.testing.assert_close(other, one, rtol=0, atol=0)
    own, there = plait.load("out"), plait.load("out.gguf")
    assert all(np.array_equal(own[name], array.astype(BF16)) for name, array in there.items())
    read = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="out.gguf")
    whole = Tokenizer.from_file("out/tokenizer.json")
    assert read(TEXT, add_special_tokens=False).input_ids == whole.encode(TEXT).ids


@pytest.mark.parametrize("length", [8192, 1024])
def test_scaling_of_llama_3_goes_there_and_back(wide, tmp_path, length):
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    change(tmp_path / "wide", rope_scaling=scaling | {"original_max_position_embeddings": length})
    back = plait.inspect(plait.export_gguf("wide", "m.gguf").path)
    assert back.config["rope_scaling"] == scaling | {"original_max_position_embeddings": length}
    change(
        tmp_path / "wide", rope_scaling=scaling | {"low_freq_factor": 2.0, "original_max_position_embeddings": length}
    )
    with pytest.raises(plait.CheckpointError, match="Llama 3"):
        plait.export_gguf("wide", "n.gguf")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "cohere"}, "models of type 'cohere' are not written to GGUF here, only llama, mistral"),
        ({"hidden_act": "gelu"}, "no place for hidden_act 'gelu' (it would be 'silu')"),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "rope scaling {'rope_type': 'dynamic', 'factor': 2.0}",
        ),
        ({"rms_norm_eps": ...}, "its config.json has no rms_norm_eps"),
        ({"num_hidden_layers": 1}, "no place for model.layers.1."),
        ({"partial_rotary_factor": 0.5}, "2 of 4 dimensions are rotary"),
    ],
)
def test_what_would_be_lost_is_refused_and_nothing_is_left(model, tmp_path, settings, message):
    change(model, **settings)
    with pytest.raises(plait.CheckpointError) as caught:
        plait.export_gguf(model, "m.gguf")
    assert message in str(caught.value)
    assert not list(tmp_path.glob("m.gguf*"))


def test_refused_tokenizers(model):
    data = json.loads((model / "tokenizer.json").read_text())
    odd = {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}]}
    for changed, message in [
        ({"pre_tokenizer": odd}, "cuts text in a way that plait has no llama.cpp name for"),
        ({"model": {"type": "Unigram", "vocab": []}}, "a tokenizer of kind 'Unigram' is not written"),
    ]:
        (model / "tokenizer.json").write_text(json.dumps(data | changed))
        with pytest.raises(plait.CheckpointError, match=message):
            plait.export_gguf(model, "m.gguf")
    (model / "tokenizer.json").unlink()
    with pytest.raises(plait.CheckpointError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        plait.export_gguf(model, "m.gguf")


def test_numbers_too_large_for_the_type_are_told(write_llama, add_tokenizer, tmp_path):
    def enlarge(arrays):
        arrays["lm_head.weight"] = np.full((310, 8), 1e6, np.float32)
        arrays["model.embed_tokens.weight"] = np.ones((310, 8), np.float32)

    folder = write_llama("large", 1, change=enlarge)
    add_tokenizer(folder)
    change(folder, vocab_size=310)
    with pytest.raises(plait.CheckpointError, match=r"lm_head\.weight: not finite, or too large for F16"):
        plait.export_gguf("large", "m.gguf", kind="f16")
    assert not list(tmp_path.glob("m.gguf*"))


def test_a_window_is_told_of(model):
    change(model, model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=16)
    assert "sliding_window 16 is left out" in plait.export_gguf(model, "m.gguf").notes[0]


def test_the_command(model, tmp_path):
    from click.testing import CliRunner

    from plait.cli import root

    def run(*arguments):
        return CliRunner().invoke(root, ["export", *arguments])

    assert "model/model-F16.gguf: 21 tensors, f16, 19" in run("model", "--gguf", "--type", "f16").output
    again = run("model", "--gguf", "model/model-F16.gguf", "--type", "f16")
    assert "is there already" in str(again.exception)
    said = json.loads(run("model", "--gguf", "x.gguf", "--json").output)
    assert said["path"] == "x.gguf"
    assert (tmp_path / "x.gguf").stat().st_size == said["bytes"]
    assert run("model").exit_code == 2


def test_a_file_that_does_not_read_back_is_not_kept(model, tmp_path, monkeypatch):
    whole = writing.open_gguf

    def cut(*arguments):
        opened = whole(*arguments)
        return replace(opened, tensors={name: opened.tensors[name] for name in list(opened.tensors)[1:]})

    monkeypatch.setattr(writing, "open_gguf", cut)
    with pytest.raises(plait.OutputError, match=r"does not read back as .*: lm_head\.weight"):
        plait.export_gguf(model, "m.gguf")
    assert not list(tmp_path.glob("m.gguf*"))
