"""Any mix of models whose head is tied, is not, is stored though it is tied, or is not there at all."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import plait

HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"
KINDS = ("tied", "untied", "stored twice", "headless")
WEIGHTS = (0.2, 0.3, 0.5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=3), delta=st.booleans())
def test_the_head_is_what_the_models_say_and_the_config_tells_the_truth(kinds, delta, draw, write, place):
    root = place()
    heads, tables = [], []
    for seed, kind in enumerate(kinds):
        arrays = draw(seed)
        if kind == "stored twice":
            arrays[HEAD] = arrays[TABLE].copy()
        elif kind != "untied":
            del arrays[HEAD]
        tables.append(arrays[TABLE])
        heads.append(None if kind == "headless" else arrays.get(HEAD, arrays[TABLE]))
        about = {"tie_word_embeddings": kind != "untied"}
        about["architectures"] = ["LlamaModel" if kind == "headless" else "LlamaForCausalLM"]
        write(root / f"m{seed}", arrays, **about)
    listed = list(enumerate(kinds))[1:] if delta else list(enumerate(kinds))
    entries = [f"{{model: {root}/m{i}, parameters: {{weight: {WEIGHTS[i]}}}}}" for i, _ in listed]
    base = f"base_model: {root}/m0\n" if delta else ""
    method = "task_arithmetic" if delta else "linear"
    (root / "r.yml").write_text(f"models: [{', '.join(entries)}]\nmerge_method: {method}\n{base}")
    plait.merge(root / "r.yml", root / "out", threads=1, verify=False)
    made = plait.load(root / "out")
    says = json.loads((root / "out/config.json").read_text())["tie_word_embeddings"]
    np.testing.assert_allclose(made[TABLE], merged(tables, delta), rtol=1e-5, atol=1e-6)
    if kinds[0] == "headless":
        assert HEAD not in made
        return
    own = "untied" in kinds
    assert (HEAD in made) == own
    assert says is not own
    if own:
        if any(head is None for head in heads):  # copied from the first that has it, which is the donor
            np.testing.assert_array_equal(made[HEAD], heads[0])
        else:
            np.testing.assert_allclose(made[HEAD], merged(heads, delta), rtol=1e-5, atol=1e-6)


def merged(arrays, delta):
    weights = WEIGHTS[: len(arrays)]
    if not delta:
        return sum(w * array for w, array in zip(weights, arrays, strict=True)) / sum(weights)
    base = arrays[0]
    return base + sum(w * (array - base) for w, array in zip(weights[1:], arrays[1:], strict=True))
