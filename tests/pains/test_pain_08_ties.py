"""Pain 8: tied embeddings: phantom heads, lost heads, and configs that do not say what is in the files."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import plait

LINEAR = "models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 0.5}\n"
HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"


def test_two_tied_models_give_one_copy(cli, model, config_of, logits):
    """mk#385: "gains 1B parameters somehow"; mk#390."""
    for seed, name in enumerate("ab"):
        model(name, seed=seed, tie_word_embeddings=True)
    assert cli("merge", "out", says=LINEAR).code == 0
    assert plait.load("out").keys() == plait.load("a").keys()
    assert HEAD not in plait.load("out")
    assert config_of("out")["tie_word_embeddings"] is True
    logits("out")


@pytest.mark.parametrize("tied", ["a", "b"])
def test_one_tied_and_one_not_give_a_head_and_a_config_that_says_so(tied, cli, model, config_of, load):
    """mk#457, mk#446: mixed, in either order; mergekit leaves tie_word_embeddings: true."""
    for seed, name in enumerate("ab"):
        model(name, seed=seed, tie_word_embeddings=name == tied)
    done = cli("merge", "out", says=LINEAR)
    assert done.code == 0, done.err
    a, b, made = (plait.load(name) for name in ("a", "b", "out"))
    heads = [one.get(HEAD, one[TABLE]) for one in (a, b)]
    np.testing.assert_allclose(made[HEAD], (heads[0] + heads[1]) / 2, rtol=1e-5)
    np.testing.assert_allclose(made[TABLE], (a[TABLE] + b[TABLE]) / 2, rtol=1e-5)
    assert config_of("out")["tie_word_embeddings"] is False
    np.testing.assert_array_equal(load("out").lm_head.weight.detach().numpy(), made[HEAD])


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_head_saved_though_it_is_tied_is_no_phantom(order, cli, model, rewrite, config_of, logits):
    """mlx-lm PR#1298: strict loaders refuse it. The copy is dropped by name where it is tied."""
    for seed, name in enumerate("ab"):
        model(name, seed=seed, tie_word_embeddings=True)
    rewrite("a", lambda arrays: arrays.update({HEAD: arrays[TABLE].copy()}))
    text = LINEAR.replace("{model: a}, {model: b}", ", ".join(f"{{model: {name}}}" for name in order))
    done = cli("merge", "out", says=text)
    assert done.code == 0, done.err
    assert HEAD not in plait.load("out")
    assert config_of("out")["tie_word_embeddings"] is True
    ledger = cli("plan", "--json", says=text).data["ledger"]
    assert [(one["model"], one["name"]) for one in ledger["dropped"]] == [("a", HEAD)]
    logits("out")


def test_a_model_with_a_head_that_was_not_saved_because_it_is_shared(cli, hf, model, tmp_path, logits):
    """One storage under two names, as a pickle may hold it."""
    model("a", tie_word_embeddings=True)
    model("b", seed=1, tie_word_embeddings=True)
    state = {name: hf.torch.from_numpy(array) for name, array in plait.load("b").items()}
    hf.torch.save(state | {HEAD: state[TABLE]}, tmp_path / "b" / "pytorch_model.bin")
    (tmp_path / "b" / "model.safetensors").unlink()
    assert cli("merge", "out", says=LINEAR).code == 0
    assert HEAD not in plait.load("out")
    logits("out")


def test_an_adapter_of_a_tied_model_leaves_it_tied(cli, hf, model, tmp_path, config_of, logits):
    """The head follows the embeddings in the adapter too: extract, and merge it back."""
    model("a", tie_word_embeddings=True)
    model("b", seed=1, tie_word_embeddings=True)
    assert cli("extract", "a", "b", "ad", "--rank", "16").code == 0
    assert cli("merge", "out", says="models: [{model: a+ad}]\nmerge_method: passthrough\n").code == 0
    assert HEAD not in plait.load("out")
    assert config_of("out")["tie_word_embeddings"] is True
    np.testing.assert_allclose(logits("out"), logits("b"), atol=1e-4)


def test_the_head_of_an_adapter_is_kept(cli, hf, model, tmp_path, config_of, logits, load):
    """unsloth PR#9331: a trained head was "discarded" on a tied base."""
    model("a", tie_word_embeddings=True)
    peft = hf.peft
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of the tie; what it then does is what is tested
        adapted = peft.get_peft_model(
            load("a"),
            peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False),
        )
    with hf.torch.no_grad():
        adapted.base_model.model.lm_head.modules_to_save["default"].weight.add_(0.3)
        adapted.save_pretrained(tmp_path / "ad")
    assert cli("merge", "out", says="models: [{model: a+ad}]\nmerge_method: passthrough\n").code == 0
    made = plait.load("out")
    np.testing.assert_allclose(made[HEAD], plait.load("a")[TABLE] + 0.3, atol=1e-6)
    np.testing.assert_array_equal(made[TABLE], plait.load("a")[TABLE])
    assert config_of("out")["tie_word_embeddings"] is False
    with hf.torch.no_grad():
        wanted = adapted(hf.torch.arange(3, 15)[None]).logits.numpy()
    np.testing.assert_allclose(logits("out"), wanted, atol=1e-5)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_config_that_says_tied_of_a_head_that_is_not_is_found_out(order, cli, model, rewrite, tmp_path):
    """Ties by config and data: tie_word_embeddings: true, and yet another head in the file."""
    for seed, name in enumerate("ab"):
        model(name, seed=seed)
    rewrite("b", tie_word_embeddings=True)
    text = LINEAR.replace("{model: a}, {model: b}", ", ".join(f"{{model: {name}}}" for name in order))
    done = cli("merge", "out", says=text)
    assert done.code == 1
    assert f"{HEAD} of b is not its {TABLE}, though its config.json ties the two." in done.err
    assert '"tie_word_embeddings": false' in done.err
    assert not (tmp_path / "out").exists()
    rewrite("b", lambda arrays: arrays.update({HEAD: arrays[TABLE].copy()}))
    assert cli("merge", "out", says=text).code == 0
