"""Tiny GGUF files, written with the gguf package alone: names and changes of the weights are spelled out here again."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import ml_dtypes  # noqa: F401 - numpy learns the types' names
import numpy as np
import pytest
from safetensors.numpy import save_file

BF16 = np.dtype("bfloat16")
WIDTH, INNER, WORDS, HEADS, LAYERS = 256, 256, 40, 4, 2
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA = NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "max_position_embeddings": 64,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "vocab_size": WORDS,
    "torch_dtype": "bfloat16",
}


# Where the float16 scales of a block are, if not at its beginning.
SCALES = {
    "Q4_1": (0, 2),
    "Q5_1": (0, 2),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
}
SCALES |= {"TQ1_0": (52,), "TQ2_0": (64,), "IQ1_M": (), "MXFP4": (), "NVFP4": ()}


def shapes(*, tied=False, gemma=False):
    """Return the shapes of a Llama (or a Gemma 2) by transformers' names."""
    half = WIDTH // 2
    layer = {
        "self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (half, WIDTH), "self_attn.v_proj": (half, WIDTH),
        "self_attn.o_proj": (WIDTH, WIDTH), "mlp.gate_proj": (INNER, WIDTH), "mlp.up_proj": (INNER, WIDTH),
        "mlp.down_proj": (WIDTH, INNER), "input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,),
    }  # fmt: skip
    if gemma:
        layer |= {"pre_feedforward_layernorm": (WIDTH,), "post_feedforward_layernorm": (WIDTH,)}
    found = {"model.embed_tokens.weight": (WORDS, WIDTH), "model.norm.weight": (WIDTH,)}
    found |= {f"model.layers.{i}.{name}.weight": shape for i in range(LAYERS) for name, shape in layer.items()}
    return found if tied or gemma else found | {"lm_head.weight": (WORDS, WIDTH)}


def gguf_name(name, names=NAMES):
    stem, _, kind = name.rpartition(".")
    if stem in names:
        return f"{names[stem]}.{kind}"
    _, _, number, stem = stem.split(".", 3)
    return f"blk.{number}.{names[stem]}.{kind}"


def turned(array, heads):
    """Interleave the two halves of each head's rows, as llama.cpp's converter does for q and k."""
    halves = array.reshape(heads, 2, len(array) // heads // 2, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def metadata(writer, **also):
    """Write what every file of these families says."""
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    for key, value in also.items():
        getattr(writer, f"add_{key}")(value)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def raw_blocks(rng, kind, shape):
    """Draw the bytes of a quantised matrix: any bits, but scales that are small and finite."""
    code = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[code]
    raw = rng.integers(0, 256, (shape[0], shape[1] // block, size), dtype=np.uint8)
    for at in SCALES.get(kind, (0,)):
        value = rng.uniform(0.001, 0.01, raw.shape[:2]).astype(np.float16)
        raw[:, :, at : at + 2] = value[..., None].view(np.uint8)
    if kind == "IQ1_M":  # the scale's four hexadecimal digits are spread over four words
        raw[:, :, 55] = raw[:, :, 55] & 0x0F | 0x10
    if kind in {"MXFP4", "NVFP4"}:
        raw[:, :, : 1 if kind == "MXFP4" else 4] = 0x38
    return raw.reshape(shape[0], -1)


def draw(rng, shape, name):
    return (rng.standard_normal(shape) * 0.1 + (1 if name.endswith("norm.weight") else 0)).astype(BF16)


@pytest.fixture
def write_gguf(tmp_path):
    """Write a Llama in one type: {name: what plait must read}, float32."""

    def write(name="model.gguf", kind="F32", *, seed=0, tied=False, change=None, architecture="llama", **also):
        rng = np.random.default_rng(seed)
        writer = gguf.GGUFWriter(tmp_path / name, architecture)
        metadata(writer, **also)
        meant = {}
        code = gguf.GGMLQuantizationType[kind]
        for key, shape in shapes(tied=tied).items():
            heads = HEADS if ".q_proj." in key else 2 if ".k_proj." in key else 0
            if len(shape) == 1 or kind in {"F32", "F16", "BF16"}:
                array = draw(rng, shape, key).astype(np.float32)
                stored = turned(array, heads) if heads and architecture == "llama" else array
                own = gguf.GGMLQuantizationType.F32 if len(shape) == 1 else code
                writer.add_tensor(gguf_name(key), gguf.quants.quantize(stored, own), raw_dtype=own)
            else:
                raw = raw_blocks(rng, kind, shape)
                stored = gguf.quants.dequantize(raw, code)
                back = stored.reshape(heads, shape[0] // heads // 2, 2, -1).swapaxes(1, 2) if heads else stored
                array = back.reshape(shape)
                writer.add_tensor(gguf_name(key), raw, raw_dtype=code)
            meant[key] = array
        if change:
            change(writer)
        finish(writer)
        return meant

    return write


@pytest.fixture
def write_plain(tmp_path):
    """Write the same Llama as safetensors, in bfloat16; returns the arrays."""

    def write(name="plain", *, seed=9, tied=False) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        arrays = {key: draw(rng, shape, key) for key, shape in shapes(tied=tied).items()}
        folder = Path(tmp_path, name)
        folder.mkdir()
        save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(CONFIG | {"tie_word_embeddings": tied}))
        return arrays

    return write


@pytest.fixture
def write_gemma(tmp_path):
    """Write a Gemma 2 whose norms have the 1 added; returns what plait must read."""

    def write(name="gemma.gguf"):
        rng = np.random.default_rng(3)
        writer = gguf.GGUFWriter(tmp_path / name, "gemma2")
        metadata(writer, key_length=64, value_length=64, attn_logit_softcapping=50.0, final_logit_softcapping=30.0)
        writer.add_sliding_window(32)
        meant = {}
        for key, shape in shapes(gemma=True).items():
            meant[key] = array = (rng.standard_normal(shape) * 0.1).astype(BF16).astype(np.float32)
            own = gguf.GGMLQuantizationType.F32 if len(shape) == 1 else gguf.GGMLQuantizationType.BF16
            stored = array + 1 if len(shape) == 1 else array
            writer.add_tensor(gguf_name(key, GEMMA), gguf.quants.quantize(stored, own), raw_dtype=own)
        finish(writer)
        return meant

    return write
