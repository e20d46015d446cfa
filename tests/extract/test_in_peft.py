"""What is extracted loads in peft, and base and adapter together are the model."""

from __future__ import annotations

import json

import numpy as np
import pytest

import plait


def _low_rank(hf, tensor, rank, size=0.3):
    up, down = hf.torch.randn(tensor.shape[0], rank), hf.torch.randn(rank, tensor.shape[1])
    return tensor + size * up @ down / (rank * tensor.shape[1]) ** 0.5


@pytest.mark.parametrize("merged", [False, True], ids=["beside", "merged"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("llama", {"tie_word_embeddings": False}),
        ("llama", {"tie_word_embeddings": True}),
        ("qwen2", {"tie_word_embeddings": False}),
        ("gpt2", {}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
    ],
    ids=["llama", "tied", "qwen2", "gpt2", "biased"],
)
def test_everything_changed_comes_back(hf, family, logits, tmp_path, kind, settings, merged):
    def change(name, tensor):
        if tensor.dim() == 2 and not any(word in name for word in ("emb", "wte", "wpe")):
            return _low_rank(hf, tensor, 4)
        return tensor + 0.1 * hf.torch.randn_like(tensor)

    base, model = family(kind, change, **settings)
    found = plait.extract(base, model, tmp_path / "out", rank=4)
    assert found.error < 1e-5
    assert all(one.rank == 4 for one in found.modules)
    assert found.modules
    wanted = logits(model)
    assert abs(wanted - logits(base)).max() > 0.1
    np.testing.assert_allclose(logits(base, tmp_path / "out", merged=merged), wanted, atol=3e-5)


def test_ranks_that_differ_by_module_scale_by_one(hf, family, logits, tmp_path):
    ranks = {"q_proj": 2, "k_proj": 2, "v_proj": 2, "down_proj": 5}

    def change(name, tensor):
        rank = next((ranks[word] for word in ranks if word in name and "layers.1" in name), 0)
        return _low_rank(hf, tensor, rank) if rank else tensor

    base, model = family("llama", change)
    found = plait.extract(base, model, tmp_path / "out", error=1e-4)
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert {one.module.rsplit(".", 1)[1]: one.rank for one in found.modules} == ranks
    assert (config["r"], config["lora_alpha"]) == (2, 2)
    assert config["rank_pattern"] == config["alpha_pattern"] == {"model.layers.1.mlp.down_proj": 5}
    assert config["modules_to_save"] is None
    np.testing.assert_allclose(logits(base, tmp_path / "out"), logits(model), atol=1e-3)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for an old name
def test_too_few_ranks_give_the_promised_error(hf, family, tmp_path):
    base, model = family("llama", lambda _, tensor: tensor + 0.1 * hf.torch.randn_like(tensor))
    found = plait.extract(base, model, tmp_path / "out", rank=8)
    loaded = hf.transformers.AutoModelForCausalLM.from_pretrained(base)
    merged = hf.peft.PeftModel.from_pretrained(loaded, tmp_path / "out").merge_and_unload().state_dict()
    before, after = plait.load(base), plait.load(model)
    for one in found.modules:
        name = f"{one.module}.weight"
        delta = after[name].astype(float) - before[name]
        missing = np.linalg.norm(after[name] - merged[name].numpy().astype(float)) / np.linalg.norm(delta)
        values = np.linalg.svd(delta, compute_uv=False)
        best = np.sqrt((values[8:] ** 2).sum() / (values**2).sum())
        np.testing.assert_allclose(one.error, missing, rtol=1e-4)
        np.testing.assert_allclose(one.error, best, rtol=1e-4)
        assert one.error > 0.3


def test_tensors_saved_whole_are_the_models_bytes(hf, family, tmp_path):
    base, model = family("llama", lambda _, tensor: tensor + 0.1 * hf.torch.randn_like(tensor))
    found = plait.extract(base, model, tmp_path / "out", rank=1)
    adapter, after = plait.load(tmp_path / "out/adapter_model.safetensors"), plait.load(model)
    assert set(found.saved) >= {"model.embed_tokens", "model.norm"}
    for module in found.saved:
        np.testing.assert_array_equal(adapter[f"base_model.model.{module}.weight"], after[f"{module}.weight"])
    assert not found.left_out
