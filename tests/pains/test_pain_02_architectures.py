"""Pain 2: an architecture that the tool does not know, or not yet. Structure is read off the checkpoints."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import plait

GRADIENT = "models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: [1, 2]}\n"
WEIGHTS = "models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 3}}]\nmerge_method: linear\n"


def test_a_family_that_came_out_yesterday(cli, tmp_path, near):
    """mk#669, mk#614: names, kinds and shapes that no list has; odd ones and scalars among them."""
    shapes = {
        "backbone.embed.weight": (40, 6),
        "head.out.weight": (40, 6),
        "backbone.final.gain": (6,),
        "temperature": (),
        **{f"backbone.cells.{i}.router.mix": (3, 6 + i) for i in range(3)},
        **{f"backbone.cells.{i}.delta_net.A_log": (5,) for i in (0, 2)},
        **{f"backbone.cells.{i}.conv.kernel": (6, 1, 4) for i in range(3)},
    }
    for seed, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        rng = np.random.default_rng(seed)
        arrays = {key: np.asarray(rng.standard_normal(shape), np.float32) for key, shape in shapes.items()}
        save_file(arrays, tmp_path / name / "model.safetensors")
        about = {"model_type": "brand_new", "architectures": ["BrandNewForCausalLM"], "num_hidden_layers": 3}
        (tmp_path / name / "config.json").write_text(json.dumps(about | {"vocab_size": 40, "hidden_size": 6}))
    done = cli("merge", "out", says=WEIGHTS)
    assert done.code == 0, done.err
    a, b = plait.load("a"), plait.load("b")
    near(plait.load("out"), {name: (a[name] + 3 * b[name]) / 4 for name in shapes})
    shown = cli("plan", "--json", says=GRADIENT).data["tensors"]
    weights = {one["name"]: one["parameters"]["weight"] for one in shown}
    assert weights["backbone.cells.1.conv.kernel"] == [1.5, 1.5]  # what are layers is found out, too
    assert weights["backbone.embed.weight"] == [1, 1]
    assert weights["head.out.weight"] == [2, 2]


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (
            "JambaForCausalLM",
            {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "num_experts": 2},
        ),
        (
            "Qwen3NextForCausalLM",
            {"layer_types": ["linear_attention", "full_attention"], "num_experts": 2, "num_experts_per_tok": 1},
        ),
        ("FalconH1ForCausalLM", {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8}),
    ],
    ids=["jamba", "qwen3_next", "falcon_h1"],
)
def test_hybrids_of_attention_and_state_spaces(kind, config, cli, model, logits, near):
    """mk#669, mk PR#696: linear attention is merged, layer by layer with its own counterpart."""
    for seed, name in enumerate("ab"):
        model(name, kind, seed=seed, **config)
    plan = cli("plan", "--json", says=WEIGHTS).data
    assert plan["ledger"]["dropped"] == plan["ledger"]["copied"] == plan["warnings"] == []
    assert {one["name"] for one in plan["tensors"]} == plait.load("a").keys()
    assert cli("merge", "out", says=WEIGHTS).code == 0
    a, b = plait.load("a"), plait.load("b")
    near(plait.load("out"), {name: (a[name] + 3 * b[name]) / 4 for name in a})
    logits("out", kind)


def test_layers_of_another_width_each(cli, model, rewrite, near):
    """mk#581: Nemotron NAS. Every layer is its own shape, some have no feed-forward part at all."""

    def uneven(arrays):
        kept = {}
        for name, array in arrays.items():
            if ".0.mlp." in name:
                kept[name] = np.ascontiguousarray(array[:, :10] if "down" in name else array[:10])
            elif not (".1.mlp." in name or ".1.post_attention" in name):
                kept[name] = array
        return kept

    for seed, name in enumerate("ab"):
        model(name, "LlamaForCausalLM", seed=seed)
        rewrite(name, uneven, architectures=["DeciLMForCausalLM"], model_type="nemotron-nas")
    plan = cli("plan", "--json", says=WEIGHTS).data
    assert plan["ledger"]["dropped"] == plan["ledger"]["copied"] == []
    assert cli("merge", "out", says=WEIGHTS).code == 0
    a, b = plait.load("a"), plait.load("b")
    near(plait.load("out"), {name: (a[name] + 3 * b[name]) / 4 for name in a})
    assert plait.load("out")["model.layers.0.mlp.down_proj.weight"].shape == (16, 10)
