"""Pain 1: the merge "succeeds" and the model is broken: tensors dropped, a model ignored, garbage in, garbage out."""

from __future__ import annotations

import re

import numpy as np
import pytest

import plait

LINEAR = "models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 0.5}\n"


def test_every_tensor_of_the_inputs_is_in_the_output_or_named(cli, model, logits, near):
    """mk#210, mk#576: norms, biases and heads vanish without a word."""
    for seed, name in enumerate("ab"):
        model(name, seed=seed, attention_bias=True, mlp_bias=True)
    a, b = plait.load("a"), plait.load("b")
    assert cli("merge", "out", says=LINEAR).code == 0
    near(plait.load("out"), {name: (a[name] + b[name]) / 2 for name in a})
    logits("out")


@pytest.mark.parametrize("who", ["both", "one"])
def test_heads_for_further_tokens_reach_the_output(who, cli, model, rewrite, logits):
    """Qwen3's mtp.*: 2U1/Qwen-VL-Series-Finetune PR#259."""
    for seed, name in enumerate("ab"):
        model(name, "Qwen3ForCausalLM", seed=seed)
        if who == "both" or name == "b":
            rewrite(name, lambda arrays, seed=seed: arrays.update({"mtp.fc.weight": np.full((4, 4), seed, np.float32)}))
    plan = cli("plan", says=LINEAR)
    assert cli("merge", "out", says=LINEAR).code == 0
    wanted = 0.5 if who == "both" else 1.0
    assert (plait.load("out")["mtp.fc.weight"] == wanted).all()
    assert ("1 tensor copied, not merged (not in a): mtp.fc.weight." in plan.out) == (who == "one")


def test_a_model_that_would_be_ignored_is_refused(cli, model, rewrite):
    """mk#653: another layout, so nothing of it met anything."""
    for seed, name in enumerate("ab"):
        model(name, seed=seed)
    rewrite("b", lambda arrays: {f"x{number}.data": array for number, array in enumerate(arrays.values())})
    done = cli("merge", "out", says=LINEAR)
    assert done.code == 2
    assert "b would be ignored: none of its tensors is merged with a's." in done.err


def test_an_input_that_changed_nothing_is_told(cli, model):
    """unsloth-zoo PR#812, PR#1234: byte-identical to the base, and nobody said so."""
    for seed, name in ((0, "base"), (0, "a"), (1, "b")):
        model(name, seed=seed)
    done = cli(
        *("merge", "out"),
        says="models: [{model: a}, {model: b}]\nmerge_method: task_arithmetic\nbase_model: base\nparameters: {weight: 1}\n",
    )
    assert done.code == 0
    assert "a is byte for byte the base wherever it is merged, so it changed nothing." in done.err


def test_what_is_written_is_held_against_its_class(cli, model):
    """mk#352, mk#481: a rule that loses a part is no success."""
    for seed, name in enumerate("ab"):
        model(name, seed=seed)
    done = cli("merge", "out", says=LINEAR + "tensors: [{match: '*.1.mlp.up_proj.weight', drop: true}]\n")
    assert done.code == 1
    assert "model.layers.1.mlp.up_proj.weight" in done.err
    assert "expects 1 tensor" in done.err


def test_numbers_that_are_none_stop_the_merge(cli, model, rewrite, tmp_path):
    for seed, name in enumerate("ab"):
        model(name, seed=seed)
    rewrite("b", lambda arrays: arrays["model.norm.weight"].__setitem__(3, np.nan))
    done = cli("merge", "out", says=LINEAR)
    assert done.code == 1
    assert "model.norm.weight of b has NaN or infinity." in done.err
    assert not (tmp_path / "out").exists()


ITSELF = {
    "linear": "merge_method: linear\nparameters: {weight: 0.5}\n",
    "slerp": "merge_method: slerp\nbase_model: a\nparameters: {t: 0.3}\n",
    "ties": "merge_method: ties\nbase_model: base\nparameters: {weight: 0.5, density: 1.0}\n",
    "dare_ties": "merge_method: dare_ties\nbase_model: base\nparameters: {weight: 0.5, density: 1.0}\n",
    "karcher": "merge_method: karcher\n",
    "model_stock": "merge_method: model_stock\nbase_model: base\n",
}


@pytest.mark.parametrize("method", ITSELF)
def test_a_model_merged_with_itself_is_itself(method, cli, model, logits):
    """mk#671, mk#652: close models came out as gibberish. Identity is the least that can be asked."""
    for name in ("a", "b"):
        model(name, seed=1)
    model("base")
    done = cli("merge", "out", says="models: [{model: a}, {model: b}]\n" + ITSELF[method])
    assert done.code == 0, done.err
    np.testing.assert_allclose(logits("out"), logits("a"), atol=1e-6)


def test_the_plan_ends_with_a_ledger(cli, model, rewrite):
    """Merged, copied (from whom, why), generated, dropped (by name, why): of every input tensor."""
    model("a", tie_word_embeddings=True)
    model("b", seed=1, tie_word_embeddings=True, attention_bias=True)
    rewrite("b", lambda arrays: arrays.update({"mtp.fc.weight": np.ones((4, 4), np.float32)}))
    shown = cli("plan", says=LINEAR).out
    ledger = shown[shown.index("Ledger") :]
    assert re.search(r"merged +20 tensors", ledger)
    assert re.search(r"copied +1 tensor from b \(not in a\): mtp.fc.weight", ledger)
    assert re.search(
        r"dropped +8 tensors of b \(.*attention_bias: false\): model.layers.0.self_attn.k_proj.bias, ", ledger
    )
    data = cli("plan", "--json", says=LINEAR).data["ledger"]
    assert len(data["merged"]) == 20
    assert data["copied"] == [{"name": "mtp.fc.weight", "model": "b", "source": "mtp.fc.weight", "reason": "not in a"}]
    assert {entry["name"] for entry in data["dropped"]} == {name for name in plait.load("b") if "bias" in name}
