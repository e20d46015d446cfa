"""Every family, merged in three ways, loads whole in transformers and has the numbers that it should."""

from __future__ import annotations

import json

import numpy as np
import pytest

import plait

FAMILIES = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma3", "phi3", "gpt2", "gpt_neox", "olmo2", "bert", "t5", "mamba"),
    "qwen3_moe",
)
LINEAR = """\
models:
  - model: {a}
    parameters: {{weight: 0.3}}
  - model: {b}
    parameters: {{weight: 0.9}}
merge_method: linear
base_model: {base}
"""
TIES = """\
models:
  - model: {a}
    parameters: {{weight: 0.6, density: 0.5}}
  - model: {b}
    parameters: {{weight: 0.4, density: 0.7}}
merge_method: ties
base_model: {base}
"""
SLERP = """\
models:
  - model: {a}
  - model: {b}
merge_method: slerp
base_model: {a}
parameters: {{t: 0.4}}
"""


def merged(family, text, recipe, tmp_path, **values):
    path = recipe(text.format(base=family.base, a=family.a, b=family.b, **values))
    return plait.merge(path, tmp_path / "out", threads=1).path


def of(folder):
    return {name: array.astype(np.float64) for name, array in plait.load(folder).items()}


def slerp(x, y, t):
    cosine = float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))
    if abs(cosine) > 0.9995:
        return (1 - t) * x + t * y
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * x + np.sin(t * angle) * y) / np.sin(angle)


def trimmed(delta, density):
    flat = np.sort(np.abs(delta).ravel())[::-1]
    return np.where(np.abs(delta) >= flat[max(1, int(density * flat.size)) - 1], delta, 0)


def ties(base, deltas, weights, densities):
    kept = [trimmed(delta, density) for delta, density in zip(deltas, densities, strict=True)]
    sign = np.where(sum(w * k for w, k in zip(weights, kept, strict=True)) >= 0, 1, -1)
    agree = [(np.sign(k) == sign) * w for w, k in zip(weights, kept, strict=True)]
    total = sum(agree)
    return base + sum(a * k for a, k in zip(agree, kept, strict=True)) / np.where(total == 0, 1, total)


def expected(method, base, a, b):
    """The same merge in plain float64."""
    if method == "linear":
        return {name: (0.3 * a[name] + 0.9 * b[name]) / 1.2 for name in a}
    if method == "slerp":
        return {name: slerp(a[name], b[name], 0.4) for name in a}
    return {name: ties(base[name], [a[name] - base[name], b[name] - base[name]], (0.6, 0.4), (0.5, 0.7)) for name in a}


@pytest.mark.parametrize("method", ["linear", "ties", "slerp"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_merge_loads_whole_and_has_the_right_values(name, method, made, recipe, clean, tmp_path):
    family = made(name)
    out = merged(family, {"linear": LINEAR, "ties": TIES, "slerp": SLERP}[method], recipe, tmp_path)
    _, info = family.load(out)
    clean(info)
    got, wanted = of(out), expected(method, of(family.base), of(family.a), of(family.b))
    assert got.keys() == wanted.keys()
    for key, value in wanted.items():
        assert value.shape == got[key].shape
        np.testing.assert_allclose(got[key], value, rtol=2e-6, atol=2e-7, err_msg=key)
    donor = family.a if method == "slerp" else family.base
    assert json.loads((out / "config.json").read_text()) == json.loads((donor / "config.json").read_text())


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "bert", "gemma3"])
def test_a_tied_model_has_no_phantom_head(name, made, recipe, tmp_path):
    family = made(name)
    out = merged(family, LINEAR, recipe, tmp_path)
    assert plait.load(out).keys() == plait.load(family.base).keys()
    assert json.loads((out / "config.json").read_text()).get("tie_word_embeddings", True)


@pytest.mark.parametrize("first", ["tied", "untied"])
def test_tied_and_untied_give_an_untied_head(first, made, recipe, clean, tmp_path):
    tied, untied = made("qwen3"), made("qwen3", "qwen3-untied", tie_word_embeddings=False)
    pair = {"tied": (tied, untied), "untied": (untied, tied)}[first]
    text = "models: [{{model: {x}, parameters: {{weight: 0.25}}}}, {{model: {y}, parameters: {{weight: 0.75}}}}]\n"
    path = recipe((text + "merge_method: linear\n").format(x=pair[0].a, y=pair[1].b))
    out = plait.merge(path, tmp_path / "out", threads=1).path
    x, y, got = of(pair[0].a), of(pair[1].b), of(out)
    heads = [one.get("lm_head.weight", one["model.embed_tokens.weight"]) for one in (x, y)]
    np.testing.assert_allclose(got["lm_head.weight"], 0.25 * heads[0] + 0.75 * heads[1], rtol=1e-6, atol=1e-8)
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    model, info = untied.load(out)
    clean(info)
    np.testing.assert_array_equal(model.lm_head.weight.detach().numpy(), got["lm_head.weight"].astype(np.float32))


@pytest.mark.parametrize("first", ["headed", "headless"])
def test_headed_and_headless_are_merged_whichever_comes_first(first, made, recipe, clean, tmp_path):
    headed = made("qwen3", "qwen3-untied", tie_word_embeddings=False)
    headless = made("qwen3", "qwen3-headless", kind="Qwen3Model", tie_word_embeddings=False)
    pair = (headed, headless) if first == "headed" else (headless, headed)
    path = recipe(
        f"models: [{{model: {pair[0].a}}}, {{model: {pair[1].b}}}]\nmerge_method: linear\nparameters: {{weight: 1}}\n"
    )
    plan = plait.plan(path)
    out = plait.merge(path, tmp_path / "out", threads=1).path
    _, info = pair[0].load(out)
    clean(info)
    short = {name.removeprefix("model."): value for name, value in of(out).items()}
    for key, value in of(headless.b if first == "headed" else headless.a).items():
        other = of(headed.a if first == "headed" else headed.b)[f"model.{key}"]
        np.testing.assert_allclose(short[key], (value + other) / 2, rtol=1e-6, atol=1e-7)
    told = "\n".join(str(warning) for warning in plan.warnings)
    assert "lm_head.weight" in told
    if first == "headless":
        assert [drop.name for drop in plan.dropped] == ["lm_head.weight"]
