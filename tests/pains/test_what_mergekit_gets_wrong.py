"""What mergekit 0.1.5 gets wrong on tiny models, each case with what is right."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import plait

MEAN = "models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 0.5}\n"
BIASED = {"attention_bias": True, "mlp_bias": True}
LLAVA = {
    "text_config": {
        "model_type": "llama",
        "vocab_size": 48,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "tie_word_embeddings": False,
        "max_position_embeddings": 32,
    },
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    },
    "image_token_id": 40,
}
GEMMA = {
    "text_config": {
        "vocab_size": 48,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
    },
    "vision_config": {k: v for k, v in LLAVA["vision_config"].items() if k != "model_type"},
    "mm_tokens_per_image": 4,
    "tie_word_embeddings": True,
}


@pytest.fixture
def merged(cli):
    """Merge a recipe into `out`; fails when that does."""

    def run(text: str, *options: str):
        done = cli("merge", "out", *options, says=text)
        assert done.code == 0, done.err
        return plait.load("out"), done

    return run


def mean_of(*names):
    models = [plait.load(name) for name in names]
    return {name: sum(np.float32(one[name]) for one in models) / len(models) for name in models[0]}


@pytest.fixture
def two(model):
    """Two models of a class near each other."""

    def make(kind: str = "LlamaForCausalLM", **config):
        for seed, name in enumerate("ab"):
            model(name, kind, seed=seed, **config)

    return make


def test_biases_are_merged(two, merged, near):
    """There: 35 tensors in, 21 out."""
    two(**BIASED)
    made, _ = merged(MEAN)
    assert len(made) == 35
    near(made, mean_of("a", "b"))


@pytest.mark.parametrize("first", ["headed", "headless"])
def test_a_headless_model_is_not_ignored(first, model, merged, near):
    """There: the output is model A, B is ignored."""
    model("headed", "Qwen3ForCausalLM")
    model("headless", "Qwen3Model", seed=1)
    order = ("headed", "headless") if first == "headed" else ("headless", "headed")
    made, done = merged(MEAN.replace("model: a", f"model: {order[0]}").replace("model: b", f"model: {order[1]}"))
    one, two = plait.load("headed"), plait.load("headless")
    for name, array in two.items():
        inside = f"model.{name}"
        np.testing.assert_allclose(made[inside if first == "headed" else name], (one[inside] + array) / 2, rtol=1e-5)
    assert "lm_head.weight" in done.err
    assert ("lm_head.weight" in made) == (first == "headed")


def test_tensors_that_no_class_knows_are_merged(two, rewrite, merged):
    """There: two extra mtp.* tensors are dropped, no message."""
    two("Qwen3ForCausalLM")
    for seed, name in enumerate("ab"):
        extra = {f"mtp.{i}.fc.weight": np.full((3, 3), seed, np.float32) for i in range(2)}
        rewrite(name, lambda arrays, extra=extra: arrays.update(extra))
    made, _ = merged(MEAN)
    assert all((made[f"mtp.{i}.fc.weight"] == 0.5).all() for i in range(2))


def test_two_vision_models_are_merged_whole(two, merged, near, load):
    """There: 43 of 64 tensors written, the whole language model missing."""
    two("LlavaForConditionalGeneration", **LLAVA)
    near(merged(MEAN)[0], mean_of("a", "b"))
    load("out", "LlavaForConditionalGeneration")


def test_a_text_model_goes_into_a_vision_model(model, merged, load):
    """There: one tensor (lm_head.weight) written."""
    model("vision", "LlavaForConditionalGeneration", **LLAVA)
    model("text", seed=1)
    made, _ = merged(
        "models: [{model: text}]\nmerge_method: task_arithmetic\nbase_model: vision\nparameters: {weight: 1}\n"
    )
    base, donor = plait.load("vision"), plait.load("text")
    assert made.keys() == base.keys()
    inner = {name for name in base if "language_model" in name or "lm_head" in name}
    assert len(inner) == len(donor)
    assert all(made[name].tobytes() == base[name].tobytes() for name in base.keys() - inner)
    for name in inner:
        wanted = donor[next(end for end in donor if name.endswith(end))]
        np.testing.assert_allclose(made[name], wanted, rtol=1e-4, atol=1e-6)
    load("out", "LlavaForConditionalGeneration")


def test_gemma3_with_vision_is_merged(two, merged, near, load):
    """There: exit code 1, vision_tower.vision_model... required but not present."""
    two("Gemma3ForConditionalGeneration", **GEMMA)
    near(merged(MEAN)[0], mean_of("a", "b"))
    load("out", "Gemma3ForConditionalGeneration")


def test_weights_that_cancel_are_refused(two, cli, tmp_path):
    """There: 21 of 21 tensors non-finite."""
    two()
    text = "models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: -1}}]\nmerge_method: linear\n"
    done = cli("merge", "out", says=text)
    assert done.code == 2
    assert "the weights [1.0, -1.0] add up to 0 and are divided by their sum" in done.err
    assert cli("merge", "out", says=text + "parameters: {normalize: false}\n").code == 0


def test_not_a_number_is_not_passed_on(two, rewrite, cli, tmp_path):
    """There: passed through, no message."""
    two()
    rewrite("a", lambda arrays: arrays["lm_head.weight"].__setitem__((5, 5), np.nan))
    done = cli("merge", "out", says=MEAN)
    assert done.code == 1
    assert "lm_head.weight of a has NaN or infinity" in done.err
    assert not (tmp_path / "out").exists()


def test_the_donor_does_not_depend_on_the_hash_seed(two, tokenizer, tmp_path):
    """There: tokenizer, template and generation_config come from B, A, B, B with PYTHONHASHSEED 0 to 3."""
    two(vocab_size=36)
    for name in "ab":
        tokenizer(name, "a")
        (tmp_path / name / "generation_config.json").write_text(json.dumps({"of": name}))
    (tmp_path / "r.yml").write_text(MEAN)
    found = set()
    for seed in "01":
        arguments = [sys.executable, "-m", "plait", "merge", "r.yml", f"out{seed}", "-q", "--no-verify"]
        subprocess.run(arguments, check=True, cwd=tmp_path, env=os.environ | {"PYTHONHASHSEED": seed})
        files = sorted((tmp_path / f"out{seed}").iterdir())
        found.add(
            tuple((file.name, file.read_bytes()) for file in files if file.name not in {"README.md", "plait.lock"})
        )
    assert len(found) == 1
    assert dict(*found)["generation_config.json"] == b'{"of": "a"}'


def test_ghost_tokens_are_not_deleted(model, tokenizer, merged, config_of, vocabulary):
    """There: two warnings, then chat tokens deleted from the tokenizer."""
    for seed, name in enumerate("ab"):
        count = len(tokenizer(name, "a", added=("<|user|>", "<|end|>")).get_vocab())
        model(name, seed=seed, vocab_size=count - 2)
    merged(MEAN + "tokenizer: {source: union}\n")
    assert {"<|user|>", "<|end|>"} <= vocabulary("out").keys()
    assert config_of("out")["vocab_size"] == count


@pytest.mark.parametrize("layers", [[(0, 3), (1, 4)], [(0, 2), (3, 4)]], ids=["deeper", "shallower"])
def test_another_depth_of_mixed_attention(layers, model, merged, config_of, load):
    """There: exit code 1 after all weights are written: num_hidden_layers must be equal to the number of layer_types."""
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    model("a", "Gemma3ForCausalLM", num_hidden_layers=4, layer_types=kinds, tie_word_embeddings=True)
    slices = "".join(f"- sources: [{{model: a, layer_range: [{a}, {b}]}}]\n" for a, b in layers)
    merged(f"slices:\n{slices}merge_method: passthrough\n")
    wanted = [kinds[index] for a, b in layers for index in range(a, b)]
    assert config_of("out")["layer_types"] == wanted
    assert config_of("out")["num_hidden_layers"] == len(wanted)
    load("out", "Gemma3ForCausalLM")


def test_layers_of_two_widths_are_refused(model, cli, tmp_path):
    """There: written, and cannot be loaded."""
    model("a")
    model("b", hidden_size=24, intermediate_size=40)
    slices = "".join(f"- sources: [{{model: {name}, layer_range: [0, 1]}}]\n" for name in "ab")
    done = cli("merge", "out", says=f"slices:\n{slices}merge_method: passthrough\n")
    assert done.code == 2
    assert "24" in done.err
    assert not list(tmp_path.glob("out*"))


def test_no_layers_is_refused(model, cli):
    """There: a model of 0 layers."""
    model("a")
    both = "- sources: [{model: a, layer_range: [0, 0]}]\n" * 2
    done = cli("merge", "out", says=f"slices:\n{both}merge_method: passthrough\n")
    assert done.code == 2
    assert "[0, 0]" in done.err


@pytest.mark.parametrize(
    ("method", "written", "meant"), [("ties", "denisty: 0.5", "density"), ("linear", "normalise: false", "normalize")]
)
def test_misspelt_parameters_are_refused(method, written, meant, two, cli):
    """There: ignored."""
    two()
    text = MEAN.replace("linear", method).replace("weight: 0.5", f"weight: 0.5, {written}") + "base_model: a\n"
    done = cli("merge", "out", says=text)
    assert done.code == 2
    assert f"Did you mean '{meant}'?" in done.err


def test_another_base_of_the_rope_is_warned_of(two, rewrite, config_of, merged):
    """There: no message."""
    two()
    rope = config_of("b").get("rope_parameters") or {}
    rewrite("b", rope_parameters=rope | {"rope_theta": 1e6})
    assert "rope_theta" in merged(MEAN)[1].err


def test_tied_and_untied_say_so(model, merged, config_of):
    """There: the head is averaged, but the config still says tie_word_embeddings: true."""
    model("a", tie_word_embeddings=True)
    model("b", seed=1)
    made, _ = merged(MEAN)
    assert "lm_head.weight" in made
    assert config_of("out")["tie_word_embeddings"] is False


def test_random_masks_are_the_same_whatever_the_order(model, merged, tmp_path):
    """There: other bytes on every run; with a seed, the order of the models changes the result."""
    for seed, name in enumerate(("base", "a", "b")):
        model(name, seed=seed)
    text = "models: [{model: %s}, {model: %s}]\nmerge_method: dare_ties\nbase_model: base\n"
    text += "parameters: {weight: 0.5, density: 0.5}\n"
    made = []
    for order, threads in (("ab", "1"), ("ab", "3"), ("ba", "2")):
        merged(text % tuple(order), "--threads", threads)
        made.append((tmp_path / "out" / "model.safetensors").read_bytes())
        shutil.rmtree(tmp_path / "out")
    assert made[0] == made[1] == made[2]


def test_what_was_killed_leaves_nothing_that_looks_finished_and_goes_on(tmp_path, two):
    """There: model-N.safetensors left behind, no index, no way to resume."""
    two()
    (tmp_path / "slow.py").write_text(
        "import time\nfrom plait.methods import Array, Weights, method\n\n"
        '@method(paper="https://example.org", locality="element")\n'
        "def slow(weights: Weights) -> Array:\n    '''Take the first.'''\n    time.sleep(0.1)\n    return weights[0]\n"
    )
    (tmp_path / "r.yml").write_text("models: [{model: a}, {model: b}]\nmerge_method: slow\n")
    arguments = [
        sys.executable,
        "-m",
        "plait",
        "merge",
        "r.yml",
        "out",
        "--methods",
        "slow.py",
        "--threads",
        "1",
        "--json",
    ]
    with subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as running:
        lines = (line for line in running.stdout if json.loads(line)["event"] == "progress")
        for _ in range(3):
            next(lines)
        running.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    again = subprocess.run(arguments, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert json.loads(again.stdout.splitlines()[0])["event"] == "resume"
    assert not list(tmp_path.glob("out?*"))
