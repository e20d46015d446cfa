"""Pain 4: mixtures of experts: layouts, rules that nobody states, experts that come out wrong."""

from __future__ import annotations

import numpy as np
import pytest

import plait

MEAN = "models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 0.5}\n"
KINDS = {
    "mixtral": ("MixtralForCausalLM", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2_moe": (
        "Qwen2MoeForCausalLM",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 12},
    ),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "decoder_sparse_step": 1},
    ),
    "gpt_oss": ("GptOssForCausalLM", {"num_local_experts": 4, "num_experts_per_tok": 2}),
}


@pytest.mark.parametrize("family", KINDS)
def test_experts_routers_and_biases_are_all_merged(family, cli, model, logits, near):
    """mk#582, mk#626, mk#652: a new family, or one whose experts are one tensor."""
    kind, config = KINDS[family]
    for seed, name in enumerate("ab"):
        model(name, kind, seed=seed, **config)
    data = cli("plan", "--json", says=MEAN).data
    assert data["ledger"]["dropped"] == data["ledger"]["copied"] == data["warnings"] == []
    assert cli("merge", "out", says=MEAN).code == 0
    a, b = plait.load("a"), plait.load("b")
    near(plait.load("out"), {name: (a[name] + b[name]) / 2 for name in a})
    logits("out", kind)


def fused(arrays):
    """Qwen3's experts as one tensor for all of a layer, as newer files have them."""
    kept = {name: array for name, array in arrays.items() if ".experts." not in name}
    for layer in range(2):
        stem = f"model.layers.{layer}.mlp.experts"
        each = [{part: arrays[f"{stem}.{i}.{part}_proj.weight"] for part in ("gate", "up", "down")} for i in range(4)]
        kept[f"{stem}.gate_up_proj"] = np.stack([np.concatenate([one["gate"], one["up"]]) for one in each])
        kept[f"{stem}.down_proj"] = np.stack([one["down"] for one in each])
    return kept


@pytest.mark.parametrize("base", ["a", "b"])
def test_fused_and_single_experts_meet_and_the_bases_layout_is_written(base, cli, model, rewrite, logits):
    """mk PR#692, llm-compressor#3037: a derivative was saved in the other layout."""
    kind, config = KINDS["qwen3_moe"]
    for seed, name in enumerate("ab"):
        model(name, kind, seed=seed, **config)
    assert cli("merge", "same", says=MEAN).code == 0
    wanted = plait.load("same")
    rewrite("b", fused)
    text = MEAN if base == "a" else MEAN.replace("{model: a}, {model: b}", "{model: b}, {model: a}")
    done = cli("merge", "out", says=text)
    assert done.code == 0, done.err
    made = plait.load("out")
    assert made.keys() == plait.load(base).keys()
    for name, array in (wanted if base == "a" else fused(wanted)).items():
        np.testing.assert_array_equal(made[name], array, err_msg=name)
    logits("out", kind)


def test_other_numbers_of_experts_are_refused_with_both(cli, model):
    """mk#395, mk#312: "No output architecture found", with no reason."""
    kind, config = KINDS["mixtral"]
    model("a", kind, **config)
    model("b", kind, seed=1, **config | {"num_local_experts": 2})
    done = cli("merge", "out", says=MEAN)
    assert done.code == 2
    assert "4" in done.err
    assert "2" in done.err
    assert "experts" in done.err
