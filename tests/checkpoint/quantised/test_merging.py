"""A Llama in each format is merged with a plain one; every tensor beside its weights is accounted for."""

import json

import ml_dtypes  # noqa: F401 - numpy learns the types' names
import numpy as np
import pytest

import plait

BF16 = np.dtype("bfloat16")


def rng_for(*seed):
    return np.random.default_rng(list(seed))


SHAPES = {
    "model.embed_tokens.weight": (64, 32),
    "model.layers.0.self_attn.q_proj.weight": (32, 32),
    "model.layers.0.self_attn.k_proj.weight": (32, 32),
    "model.layers.0.self_attn.v_proj.weight": (32, 32),
    "model.layers.0.self_attn.o_proj.weight": (32, 32),
    "model.layers.0.mlp.gate_proj.weight": (96, 32),
    "model.layers.0.mlp.up_proj.weight": (96, 32),
    "model.layers.0.mlp.down_proj.weight": (32, 96),
    "model.layers.0.input_layernorm.weight": (32,),
    "model.layers.0.post_attention_layernorm.weight": (32,),
    "model.norm.weight": (32,),
    "lm_head.weight": (64, 32),
}
ABOUT = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 96}
ABOUT |= {"num_attention_heads": 2, "vocab_size": 64, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}


@pytest.fixture
def llamas(formats, write, tmp_path, monkeypatch):
    """Write an ordinary Llama and one in a format; return what the second means, and its stored names."""
    monkeypatch.chdir(tmp_path)

    def made(form):
        plain, stored, meant, settings = {}, {}, {}, {}
        for seed, (name, shape) in enumerate(SHAPES.items()):
            plain[name] = rng_for(20, seed).standard_normal(shape).astype(BF16)
            meant[name] = other = rng_for(21, seed).standard_normal(shape).astype(BF16)
            stored[name] = other
            if "_proj." in name:
                arrays, settings, expected = formats[form](other.astype(np.float32))
                del stored[name]
                stored |= {name.removesuffix("weight") + key: array for key, array in arrays.items()}
                meant[name] = expected.astype(np.float32).astype(BF16)
        write(plain, None, "plain", **ABOUT)
        write(stored, settings, "q", **ABOUT)
        return plain, meant, set(stored) - set(SHAPES)

    return made


LINEAR = "models: [{model: q}, {model: plain}]\nmerge_method: linear\nparameters: {weight: 0.5}\n"


def test_a_quantised_llama_merges_with_a_plain_one(whole, llamas, tmp_path):
    plain, meant, beside = llamas(whole)
    (tmp_path / "r.yml").write_text(LINEAR)
    plan = plait.plan("r.yml")
    said = " ".join(plan.models[0].notes)
    assert "Quantised, " in said
    assert "7 tensors dequantised to bfloat16 as they are read" in said
    assert "quantization_config is left out" in said
    left_out = {name for name in beside if name.rpartition(".")[2] in {"input_scale", "weight_format"}}
    assert {(drop.model, drop.name) for drop in plan.dropped} == {("q", name) for name in left_out}
    assert {step.name for step in plan.steps} == set(SHAPES)
    parts = {part.name for step in plan.steps for source in step.inputs for part in source.tensor.held}
    assert beside - parts == left_out, "every tensor beside a weight is read into it, or listed as dropped"
    plait.merge("r.yml", "out", threads=2)
    written = plait.load("out")
    for name in SHAPES:
        mean = (meant[name].astype(np.float32) + plain[name].astype(np.float32)) / 2
        np.testing.assert_array_equal(written[name].astype(np.float32), mean.astype(BF16).astype(np.float32), name)
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())


def test_merged_with_itself_it_is_what_it_means_whatever_the_threads(llamas, tmp_path):
    _, meant, _ = llamas("gptq")
    (tmp_path / "r.yml").write_text(
        "models: [{model: q}, {model: q}]\nmerge_method: slerp\nbase_model: q\nparameters: {t: 0.5}\n"
    )
    (tmp_path / "c.yml").write_text("models: [{model: q}]\nmerge_method: passthrough\n")
    plait.merge("c.yml", "one", threads=1)
    plait.merge("c.yml", "two", threads=3)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()
    written = plait.load("one")
    for name in SHAPES:
        np.testing.assert_array_equal(written[name], meant[name])


def test_the_plan_counts_the_bytes_that_are_stored(llamas, tmp_path):
    llamas("packed int4 by row")
    (tmp_path / "c.yml").write_text("models: [{model: q}]\nmerge_method: passthrough\n")
    step = next(step for step in plait.plan("c.yml").steps if step.name.endswith("gate_proj.weight"))
    assert step.sources[0].nbytes == 96 * 32 // 2 + 96 * 2 + 16
