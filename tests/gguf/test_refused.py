"""What is no model, is not known, or would be read wrongly is refused by name."""

import struct
import sys

import gguf
import numpy as np
import pytest

import plait
from plait.checkpoint.gguf.header import read_gguf_header


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(name="model.gguf"):
    with pytest.raises(plait.CheckpointError) as caught:
        plait.inspect(name)
    return str(caught.value)


def test_a_folder_with_several_is_asked_which(write_gguf, tmp_path):
    write_gguf("a-Q4_0.gguf")
    assert plait.inspect(tmp_path).tensors
    (tmp_path / "mmproj-a.gguf").write_bytes(b"GGUF")
    assert plait.inspect(tmp_path).tensors, "a vision projector is no model"
    write_gguf("b-Q8_0.gguf")
    message = refused(tmp_path)
    assert "2 GGUF models: a-Q4_0.gguf, b-Q8_0.gguf. Name one of them" in message
    assert plait.inspect("b-Q8_0.gguf").tensors


def test_beside_safetensors_it_is_left_alone(write_gguf, write_plain, tmp_path):
    write_plain()
    write_gguf("plain/other.gguf", seed=4)
    assert all(tensor.file.endswith(".safetensors") for tensor in plait.inspect("plain").tensors.values())


def test_without_the_package_the_extra_is_named(write_gguf, monkeypatch):
    write_gguf()
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "need the package gguf: pip install 'plait[gguf]'" in refused()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "truncated, or not a GGUF file"),
        (b"GGML" + bytes(100), "does not begin with 'GGUF'"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(16), "GGUF, version 1; plait reads versions 2 and 3"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(16), "GGUF, big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 60), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 8, 1 << 60), "truncated"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 77), "metadata of an unknown type, 77"),
        (
            b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 9, 1),
            "list of an unknown type, 9",
        ),
        (b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<I", 9), "t has 9 dimensions"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<IQIQ", 1, 32, 999, 0), "t has type 999"),
        (
            b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<IQIQ", 1, 33, 2, 0),
            "no whole blocks of Q4_0",
        ),
    ],
)
def test_broken_headers(tmp_path, raw, message):
    (tmp_path / "model.gguf").write_bytes(raw)
    assert message in refused()


def test_a_file_that_is_cut_short_anywhere(write_gguf, tmp_path):
    write_gguf(kind="Q8_0")
    raw = (tmp_path / "model.gguf").read_bytes()
    end = max(tensor.offset for tensor in read_gguf_header("model.gguf").tensors)
    for length in [5, 20, 40, 200, 700, 1500, end, len(raw) - 64]:
        (tmp_path / "cut.gguf").write_bytes(raw[:length])
        assert "truncated" in refused("cut.gguf")


def test_architectures_tensors_and_types_that_are_not_known(write_gguf):
    write_gguf(architecture="bloom")
    assert "a GGUF file of architecture 'bloom'; plait reads llama, qwen2, qwen2moe" in refused()

    def odd(writer):
        writer.add_tensor("blk.0.attn_sinks.weight", np.zeros(4, np.float32))
        writer.add_tensor("blk.0.attn_q.scale", np.zeros(4, np.float32))

    write_gguf(change=odd)
    assert "not known in llama: blk.0.attn_sinks.weight, blk.0.attn_q.scale" in refused()

    def whole(writer):
        writer.add_tensor("blk.0.attn_q.bias", np.zeros(4, np.int32))

    write_gguf(change=whole)
    assert "of a type that cannot be dequantised: blk.0.attn_q.bias (I32)" in refused()


def test_settings_that_the_class_cannot_have(write_gguf):
    write_gguf(rope_dimension_count=32)
    assert "32 of 64 dimensions are rotary; llama has all" in refused()
    write_gguf(value_length=32, key_length=64)
    assert "keys and values differ in length" in refused()

    def factors(writer):
        writer.add_tensor("rope_freqs.weight", np.linspace(1, 8, 32).astype(np.float32))

    write_gguf(change=factors)
    assert "not the factors of Llama 3's rope scaling" in refused()
    write_gguf(change=factors, key_length=1 << 31, value_length=1 << 31)
    assert "not the factors of Llama 3's rope scaling" in refused(), "and no table of as many is made"
    write_gguf(block_count=1 << 31)
    assert "num_hidden_layers as 2147483648, which cannot be" in refused()
    write_gguf(rope_scaling_type=gguf.RopeScalingType.LONGROPE, rope_scaling_factor=4.0)
    assert "rope scaling of kind 'longrope' (factor 4.0) is not read" in refused()


def test_layers_that_differ_in_heads(write_gguf, tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    for name in ("block_count", "context_length", "embedding_length", "feed_forward_length"):
        getattr(writer, f"add_{name}")(2)
    writer.add_head_count([4, 8])
    writer.add_tensor("token_embd.weight", np.zeros((4, 2), np.float32))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    assert "llama.attention.head_count is not one number" in refused()
