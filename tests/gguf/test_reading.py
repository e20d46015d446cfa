"""GGUF files are read as the checkpoints that they were made from, tile by tile."""

import json

import gguf
import numpy as np
import pytest

import plait
from plait.checkpoint import FileReader

QUANTISED = sorted(kind.name for kind in gguf.quants._type_traits if kind.name != "BF16")
BF16 = np.dtype("bfloat16")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def recipe(tmp_path, *models, dtype="", method="linear"):
    listed = ", ".join(f"{{model: {model}}}" for model in models)
    weight = "parameters: {weight: 0.5}\n" if method == "linear" else ""
    text = f"models: [{listed}]\nmerge_method: {method}\n{weight}" + (f"dtype: {dtype}\n" if dtype else "")
    (tmp_path / "r.yml").write_text(text)
    return "r.yml"


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_plain_numbers_are_read_bit_by_bit(write_gguf, kind):
    meant = write_gguf(kind=kind)
    read = plait.load("model.gguf")
    assert read.keys() == meant.keys()
    for name, array in meant.items():
        assert read[name].shape == array.shape
        expected = array.astype(np.float16) if kind == "F16" and array.ndim > 1 else array
        np.testing.assert_array_equal(read[name].astype(np.float32), expected.astype(np.float32), name)


@pytest.mark.parametrize("kind", QUANTISED)
def test_every_type_that_the_package_dequantises(write_gguf, kind):
    meant = write_gguf(kind=kind)
    read = plait.load("model.gguf")
    for name, array in meant.items():
        np.testing.assert_array_equal(read[name], array, name)


@pytest.mark.parametrize("name", ["model.layers.1.self_attn.k_proj.weight", "model.layers.0.mlp.down_proj.weight"])
def test_any_piece_is_that_of_the_whole(write_gguf, name):
    meant = write_gguf(kind="Q4_0")[name].reshape(-1)
    tensor = plait.inspect("model.gguf").tensors[name]
    with FileReader() as reader:
        for start, count in [(0, 1), (255, 3), (64 * 256 - 5, 12), (100, 20_000), (len(meant) - 7, 7)]:
            out = np.empty(count * 4, np.uint8)
            reader.read_elements(tensor, start, out)
            np.testing.assert_array_equal(out.view(np.float32), meant[start : start + count])


def test_no_tile_makes_more_than_a_band(write_gguf, monkeypatch):
    write_gguf(kind="Q4_0")
    made = []
    whole = gguf.quants.dequantize
    monkeypatch.setattr(gguf.quants, "dequantize", lambda raw, kind: made.append(raw.size) or whole(raw, kind))
    tensor = plait.inspect("model.gguf").tensors["model.layers.0.self_attn.q_proj.weight"]
    made.clear()
    with FileReader() as reader:
        reader.read_elements(tensor, 70 * 256, np.empty(4 * 256, np.uint8))
    assert made == [64 * 256 // 32 * 18], "one head of four, and no more"


def test_norms_of_gemma_lose_their_one(write_gemma):
    meant = write_gemma()
    read = plait.load("gemma.gguf")
    for name, array in meant.items():
        np.testing.assert_allclose(read[name].astype(np.float32), array, atol=1e-7, err_msg=name)
    config = plait.inspect("gemma.gguf").config
    assert config["query_pre_attn_scalar"] == config["head_dim"] == 64
    assert (config["final_logit_softcapping"], config["sliding_window"]) == (30.0, 32)
    assert config["tie_word_embeddings"] is True


def test_the_config_says_what_the_metadata_says(write_gguf):
    write_gguf(kind="Q8_0", tied=True)
    config = plait.inspect("model.gguf").config
    assert config == {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "num_hidden_layers": 2, "max_position_embeddings": 64, "hidden_size": 256, "intermediate_size": 256,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "vocab_size": 40, "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
        "torch_dtype": "bfloat16",
    }  # fmt: skip


def test_a_config_beside_the_file_counts_if_it_is_this_models(write_gguf, tmp_path):
    write_gguf()
    own = plait.inspect("model.gguf").config
    (tmp_path / "config.json").write_text(json.dumps({**own, "initializer_range": 0.5}))
    assert plait.inspect("model.gguf").config["initializer_range"] == 0.5
    (tmp_path / "config.json").write_text(json.dumps({**own, "hidden_size": 512}))
    opened = plait.inspect("model.gguf")
    assert opened.config == own
    assert any("hidden_size 512, not 256" in note for note in opened.notes)


@pytest.mark.parametrize("kind", ["Q4_K", "Q8_0", "F16"])
def test_it_merges_with_a_plain_checkpoint_and_every_tensor_is_accounted_for(write_gguf, write_plain, tmp_path, kind):
    meant, plain = write_gguf(kind=kind), write_plain()
    planned = plait.plan(recipe(tmp_path, "plain", "model.gguf"))
    assert {step.name for step in planned.steps} == set(plain)
    assert not planned.dropped
    assert any(f"{kind}" in note for note in planned.models[1].notes)
    plait.merge("r.yml", "out", threads=2)
    written = plait.load("out")
    for name, array in plain.items():
        stored = meant[name].astype(np.float16).astype(np.float32) if kind == "F16" else meant[name]
        mean = (array.astype(np.float32) + stored) / 2
        np.testing.assert_array_equal(written[name].astype(np.float32), mean.astype(BF16).astype(np.float32), name)


def test_the_bytes_do_not_depend_on_threads(write_gguf, tmp_path):
    write_gguf(kind="Q5_K")
    recipe(tmp_path, "model.gguf", method="passthrough")
    plait.merge("r.yml", "one", threads=1)
    plait.merge("r.yml", "two", threads=3)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()


def test_alone_it_is_written_as_bfloat16_norms_too(write_gguf, tmp_path):
    meant = write_gguf(kind="Q6_K")
    plait.merge(recipe(tmp_path, "model.gguf", method="passthrough"), "out")
    written = plait.load("out")
    for name, array in meant.items():
        assert written[name].dtype == BF16
        np.testing.assert_array_equal(written[name], array.astype(BF16), name)


def test_the_plan_counts_the_bytes_that_are_stored(write_gguf, tmp_path):
    write_gguf(kind="Q4_0")
    planned = plait.plan(recipe(tmp_path, "model.gguf", method="passthrough"))
    step = next(step for step in planned.steps if step.name.endswith("1.self_attn.q_proj.weight"))
    assert step.sources[0].nbytes == 256 * 256 // 32 * 18


def test_factors_of_llama_3_become_its_scaling(write_gguf):
    def change(writer):
        waves = 2 * np.pi * 10000.0 ** (np.arange(0, 64, 2) / 64)
        smooth = (8192 / waves - 1) / 3
        factors = np.clip(1 / ((1 - smooth) / 32 + smooth), 1, 32)
        factors[waves > 8192] = 32
        factors[waves < 2048] = 1
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))

    write_gguf(change=change)
    opened = plait.inspect("model.gguf")
    assert opened.config["rope_scaling"] == {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    assert opened.left_out == {"rope_freqs.weight": "in config.json, as rope scaling"}


def test_a_model_in_several_files_is_one(write_gguf, tmp_path):
    meant = write_gguf()
    parts = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    reader = gguf.GGUFReader("model.gguf")
    for number, part in enumerate(parts):
        writer = gguf.GGUFWriter(part, "llama")
        if not number:
            for key, code in [("block_count", 2), ("context_length", 64), ("embedding_length", 256)]:
                writer.add_uint32(f"llama.{key}", code)
            writer.add_feed_forward_length(256)
            writer.add_head_count(4)
            writer.add_head_count_kv(2)
            writer.add_layer_norm_rms_eps(1e-5)
        for tensor in reader.tensors[number::2]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    (tmp_path / "model.gguf").unlink()
    for named in (tmp_path, *parts):
        read = plait.load(named)
        assert all(np.array_equal(read[name], array) for name, array in meant.items())
    (tmp_path / parts[0]).rename(tmp_path / "elsewhere")
    with pytest.raises(plait.CheckpointError, match=r"in 2 files, of which m-00001-of-00002\.gguf are not there"):
        plait.inspect(parts[1])
