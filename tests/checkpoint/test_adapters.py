"""Adapter folders: which are read, under which names, and what is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest

from plait.checkpoint import FileReader, open_checkpoint
from plait.errors import CheckpointError

RNG = np.random.default_rng(5)
BASE = {
    "model.embed_tokens.weight": RNG.standard_normal((11, 6)).astype(np.float32),
    "model.layers.0.q.weight": RNG.standard_normal((8, 6)).astype(np.float32),
    "model.layers.0.q.bias": RNG.standard_normal(8).astype(np.float32),
    "model.layers.1.q.weight": RNG.standard_normal((8, 6)).astype(np.float32),
    "model.norm.weight": np.ones(6, np.float32),
}
A, B = RNG.standard_normal((2, 6)).astype(np.float32), RNG.standard_normal((8, 2)).astype(np.float32)
Q = "base_model.model.model.layers.0.q"
PLAIN = {f"{Q}.lora_A.weight": A, f"{Q}.lora_B.weight": B}
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "base_model_name_or_path": "../base"}


@pytest.fixture
def adapter(tmp_path, write_tensors, monkeypatch):
    """Write base/ and adapter/; returns a function of the adapter's tensors and of what its config has besides."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "adapter").mkdir()
    write_tensors(tmp_path / "base" / "model.safetensors", BASE)
    (tmp_path / "base" / "config.json").write_text('{"model_type": "tiny", "vocab_size": 11}')

    def write(tensors=PLAIN, **config):
        write_tensors(tmp_path / "adapter" / "adapter_model.safetensors", tensors)
        (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(CONFIG | config))
        return tmp_path / "adapter"

    return write


def refused(**options):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint("base", adapter="adapter", **options)
    return str(caught.value)


def read(checkpoint, name):
    tensor = checkpoint.tensors[name]
    raw = np.empty(tensor.nbytes, np.uint8)
    with FileReader() as reader:
        reader.read_elements(tensor, 0, raw)
    return raw.view(np.float32).reshape(tensor.shape)


@pytest.mark.parametrize("named", ["base_model.model.{}", "{}"])
@pytest.mark.parametrize("kept", ["", ".default", ".mine"])
def test_names_with_and_without_the_adapters_own(adapter, named, kept):
    name = named.format("model.layers.0.q")
    adapter({f"{name}.lora_A{kept}.weight": A, f"{name}.lora_B{kept}.weight": B})
    opened = open_checkpoint("base", adapter="adapter")
    assert opened.reference == "base+adapter"
    np.testing.assert_allclose(
        read(opened, "model.layers.0.q.weight"), BASE["model.layers.0.q.weight"] + 1.5 * (B @ A), rtol=1e-6, atol=1e-6
    )
    assert opened.tensors["model.layers.1.q.weight"] == open_checkpoint("base").tensors["model.layers.1.q.weight"]


def test_names_are_aligned_with_the_base(adapter):
    adapter({"base_model.model.layers.0.q.lora_A.weight": A, "base_model.model.layers.0.q.lora_B.weight": B})
    opened = open_checkpoint("base", adapter="adapter")
    assert opened.tensors["model.layers.0.q.weight"].derived
    assert any("1 names read with 'model' to match base" in note for note in opened.notes)


@pytest.mark.parametrize("saved", ["norm.weight", "norm.modules_to_save.weight", "norm.modules_to_save.default.weight"])
def test_modules_saved_whole_replace_the_bases(adapter, saved):
    whole = np.full(6, 7, np.float32)
    adapter(PLAIN | {f"base_model.model.model.{saved}": whole}, modules_to_save=["norm"])
    opened = open_checkpoint("base", adapter="adapter")
    assert read(opened, "model.norm.weight").tolist() == whole.tolist()
    assert opened.notes[-1] == "adapter adapter on base: 1 module, rank 2, 1 tensor replaced."


def test_a_base_layer_saved_with_its_adapter_is_what_it_is_added_to(adapter):
    other = BASE["model.layers.0.q.weight"] * 2
    adapter(PLAIN | {f"{Q}.base_layer.weight": other})
    made = read(open_checkpoint("base", adapter="adapter"), "model.layers.0.q.weight")
    np.testing.assert_allclose(made, other + 1.5 * (B @ A), rtol=1e-6, atol=1e-6)


def test_a_bias_of_b_is_scaled(adapter):
    bias = np.arange(8, dtype=np.float32)
    adapter(PLAIN | {f"{Q}.lora_B.bias": bias}, lora_bias=True, use_rslora=True)
    made = read(open_checkpoint("base", adapter="adapter"), "model.layers.0.q.bias")
    np.testing.assert_allclose(made, BASE["model.layers.0.q.bias"] + np.float32(3 / 2**0.5) * bias, rtol=1e-6)


def test_a_convolution(adapter, write_tensors):
    weight, down = RNG.standard_normal((4, 3, 2, 2)).astype(np.float32), RNG.standard_normal((2, 3, 2, 2))
    up = RNG.standard_normal((4, 2, 1, 1)).astype(np.float32)
    adapter({"conv.lora_A.weight": down.astype(np.float32), "conv.lora_B.weight": up})
    write_tensors(open_checkpoint("base").path / "model.safetensors", {"conv.weight": weight})
    made = read(open_checkpoint("base", adapter="adapter"), "conv.weight")
    expected = weight + 1.5 * np.einsum("or,rihw->oihw", up[:, :, 0, 0], down)
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["IA3", "LOHA", "LOKR", "ADALORA", "PREFIX_TUNING", "PROMPT_TUNING", "OFT", "VERA"])
def test_other_kinds_are_refused_by_name(adapter, kind):
    adapter(peft_type=kind)
    assert f"adapter_config.json: a {kind} adapter. plait reads LoRA adapters" in refused()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"alora_invocation_tokens": [1]}, "activated LoRA"),
        ({"layer_replication": [[0, 1]]}, "layers replicated"),
        ({"target_parameters": ["experts.down"]}, "target_parameters"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"use_qalora": True}, "QA-LoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "a base that was changed at its start"),
        ({"init_lora_weights": "olora"}, "path_initial_model_for_weight_conversion"),
        ({"r": 3}, "has rank 2, but"),
        ({"rank_pattern": {"q": 4}}, "the scaling would be wrong"),
        ({"rank_pattern": {"q(": 4}}, "no regular expression"),
        ({"r": 0}, "a whole number from 1 on, not 0"),
        ({"lora_alpha": "x"}, "lora_alpha must be a finite number, not 'x'"),
        ({"use_dora": True}, "has no magnitude vector, but"),
    ],
)
def test_what_would_be_wrong_weights_is_refused(adapter, config, told):
    adapter(**config)
    assert told in refused()


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({f"{Q}x.lora_A.weight": A, f"{Q}x.lora_B.weight": B}, f"2 tensors fit none of base: {Q}x.lora_A.weight"),
        ({**PLAIN, "base_model.model.score.weight": np.ones((2, 6), np.float32)}, "base_model.model.score.weight"),
        ({f"{Q}.lora_A.weight": A}, "but no B; the file is not whole"),
        ({**PLAIN, f"{Q}.lora_A.other.weight": A}, "two adapters in one file"),
        ({**PLAIN, f"{Q}.lora_magnitude_vector": np.ones(8, np.float32)}, "use_dora: false"),
        (
            {f"{Q}.lora_A.weight": A[:, :5].copy(), f"{Q}.lora_B.weight": B},
            "make [8, 5]; model.layers.0.q.weight is [8, 6]",
        ),
        ({**PLAIN, "model.embed_tokens.weight": np.ones((12, 6), np.float32)}, "The vocabulary was resized"),
        ({**PLAIN, f"{Q}.lora_E": A}, f"{Q}.lora_E"),
        ({**PLAIN, "model.layers.1.q.lora_B.bias": np.ones(8, np.float32)}, "but no A and B"),
    ],
)
def test_every_tensor_is_accounted_for(adapter, tensors, told):
    adapter(tensors)
    assert told in refused()


def test_an_adapter_alone_finds_its_base_beside_it(adapter, monkeypatch):
    folder = adapter()
    monkeypatch.chdir("/")
    opened = open_checkpoint(folder)
    assert opened.path == folder.parent / "base"
    assert opened.adapters == (folder,)
    assert opened.reference == str(folder)


@pytest.mark.parametrize(
    ("named", "told"),
    [(None, "names no base"), ("../nothing", "cannot be had"), (".", "is the adapter itself"), ("", "names no base")],
)
def test_an_adapter_alone_without_its_base(adapter, named, told):
    adapter(base_model_name_or_path=named)
    with pytest.raises(CheckpointError, match=told) as caught:
        open_checkpoint("adapter")
    assert "<its base>+adapter" in str(caught.value)


def test_an_adapter_on_an_adapter(adapter, tmp_path, write_tensors):
    folder = adapter()
    (tmp_path / "second").mkdir()
    write_tensors(tmp_path / "second" / "adapter_model.safetensors", PLAIN)
    (tmp_path / "second" / "adapter_config.json").write_text(
        json.dumps(CONFIG | {"base_model_name_or_path": "../adapter"})
    )
    opened = open_checkpoint("second")
    assert opened.adapters == (folder, tmp_path / "second")
    expected = BASE["model.layers.0.q.weight"] + 3 * (B @ A)
    np.testing.assert_allclose(read(opened, "model.layers.0.q.weight"), expected, rtol=1e-5, atol=1e-6)


def test_a_folder_that_is_no_adapter(adapter):
    adapter()
    with pytest.raises(CheckpointError, match=r"no adapter_config.json in .*base"):
        open_checkpoint("base", adapter="base")
