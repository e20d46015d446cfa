"""Pain 7: quantised inputs: read as what they mean, or refused by name; never mixed in as raw numbers."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import plait

BLOCK = 8
LINEAR = "models: [{model: q}, {model: twin}]\nmerge_method: linear\nparameters: {weight: 0.5}\n"
ABOUT = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic"}


def in_fp8(arrays):
    """Store matrices of layers as DeepSeek does: E4M3 and one scale a block."""
    stored = {}
    for name, array in arrays.items():
        if "_proj" not in name:
            stored[name] = array
            continue
        blocks = array.astype(np.float32).reshape(array.shape[0] // BLOCK, BLOCK, array.shape[1] // BLOCK, BLOCK)
        scales = abs(blocks).max(axis=(1, 3), keepdims=True) / 448
        stored[name] = (blocks / scales).reshape(array.shape).astype(ml_dtypes.float8_e4m3fn)
        stored[f"{name}_scale_inv"] = scales[:, 0, :, 0]
    return stored


@pytest.fixture
def pair(model, rewrite):
    """A model in FP8 and its twin that is plain."""
    model("twin")
    model("q")
    rewrite("q", in_fp8, quantization_config=ABOUT, torch_dtype="float32")


def test_fp8_is_read_as_what_it_means(pair, cli, config_of, logits):
    """mergekit: relative error 3613x, scales dropped, no warning; mk#512, unsloth-zoo PR#803."""
    done = cli("merge", "out", says=LINEAR)
    assert done.code == 0, done.err
    made, twin = plait.load("out"), plait.load("twin")
    assert made.keys() == twin.keys()
    for name, array in made.items():
        error = abs(np.float32(array) - np.float32(twin[name])).max() / abs(np.float32(twin[name])).max()
        assert error < 0.03, name
    assert "quantization_config" not in config_of("out")
    assert "quantization_config is left out" in cli("plan", says=LINEAR).out
    logits("out")


def test_a_base_in_fp8_leaves_no_word_of_it(pair, cli, model, config_of, logits):
    """mergekit: bf16 weights written, quantization_config fp8 left in config.json."""
    model("a", seed=1)
    text = "models: [{model: a}]\nmerge_method: task_arithmetic\nbase_model: q\nparameters: {weight: 1}\n"
    assert cli("merge", "out", says=text).code == 0
    assert "quantization_config" not in config_of("out")
    np.testing.assert_allclose(logits("out"), logits("a"), atol=1e-4)


def test_the_headline_counts_what_the_files_hold(pair, cli):
    data = cli("plan", "--json", says=LINEAR).data
    held = sum(array.nbytes for name in ("q", "twin") for array in plait.load(name).values())
    assert held < 2 * sum(one["bytes_written"] for one in data["tensors"])
    assert data["bytes_read"] == held
    assert sum(one["bytes_read"] for one in data["tensors"]) == held


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"quant_method": "quip"}, "quip"),
        ({"quant_method": "hqq"}, "hqq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(about, told, cli, model, rewrite, tmp_path):
    """mk#75, mk#482: "operands could not be broadcast"."""
    for name in ("q", "twin"):
        model(name)
    rewrite("q", quantization_config=about)
    done = cli("merge", "out", says=LINEAR)
    assert done.code == 2
    assert "q is quantised" in done.err
    assert told in done.err
    assert not list(tmp_path.glob("out*"))
