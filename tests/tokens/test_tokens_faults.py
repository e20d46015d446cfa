"""What a tokenizer section asks for that cannot be had, and what the plan says of what can."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import plait

LINEAR = """\
merge_method: linear
parameters: {weight: 0.5}
models: [{model: a}, {model: b}]
"""


@pytest.fixture
def pair(tokenizer, write_model):
    """Two models of different vocabularies."""
    return write_model("a", 1, tokenizer("bpe", "a", 60)), write_model("b", 2, tokenizer("bpe", "b", 50))


@pytest.fixture
def faults(recipe):
    """Plan a recipe that is at fault; returns the faults' texts."""

    def of(text):
        with pytest.raises(plait.RecipeError) as error:
            plait.plan(recipe(text))
        return [str(fault) for fault in error.value.faults]

    return of


def test_without_a_section_both_sizes_and_the_remedy_are_told(pair, faults):
    (told,) = faults(LINEAR)
    sizes = [load_file(folder / "model.safetensors")["lm_head.weight"].shape[0] for folder in pair]
    assert f"lm_head.weight is [{sizes[0]}, 8] in a, [{sizes[1]}, 8] in b" in told
    assert "tokenizer_source: union" in told


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("{source: c}", "is to come from c, which is not an input"),
        (
            "{source: {kind: model_token, model: a, token_id: 999}}",
            "a has 60 rows in model.embed_tokens.weight; row 999",
        ),
        ("{source: {kind: model_token, model: a, token: nowhere}}", "a has no token 'nowhere'"),
        ("{source: a}", "a has no token 'Ġchien'"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_a_fault_with_its_line(rule, wanted, pair, faults, write_llama):
    write_llama("c", 4)
    rows = load_file(pair[0] / "model.safetensors")["lm_head.weight"].shape[0]
    told = faults(LINEAR + f"tokenizer:\n  source: union\n  tokens:\n    Ġchien: {rule}\n")
    assert told[0].startswith("r.yml:7: tokenizer: ")
    assert wanted.replace("60", str(rows)) in told[0]


def test_a_tokenizer_that_cannot_be_read_is_named(pair, faults):
    (pair[1] / "tokenizer.json").unlink()
    assert "b has no tokenizer that plait can read" in faults(LINEAR + "tokenizer_source: union\n")[0]


def test_tables_that_cannot_be_aligned_are_refused(pair, faults):
    for folder in pair:
        arrays = load_file(folder / "model.safetensors")
        arrays["final_logits_bias"] = np.zeros((1, arrays["lm_head.weight"].shape[0]), np.float32)
        save_file(arrays, folder / "model.safetensors")
    told = faults(LINEAR + "tokenizer_source: union\n")
    assert any("final_logits_bias of a has one column a token" in text for text in told)


def test_the_plan_says_what_becomes_of_the_tokens(pair, recipe):
    notes = plait.plan(recipe(LINEAR + "tokenizer_source: union\n")).notes
    assert any("rows are aligned by token" in note for note in notes)
    assert any("become added tokens, matched as written" in note for note in notes)
    assert any(note.startswith("config.json: vocab_size") for note in notes)
    notes = plait.plan(recipe(LINEAR + "tokenizer_source: base\n")).notes
    assert any("tokens of b are not in the output" in note for note in notes)


def test_a_stage_is_aligned_before_it_is_merged_further(pair, recipe, tokenizer, write_model):
    write_model("c", 3, tokenizer("bpe", "a", 60))
    first = "name: first\n" + LINEAR + "tokenizer_source: union\n---\n"
    text = first + LINEAR.replace("model: b", "model: c").replace("model: a", "model: first")
    with pytest.raises(plait.RecipeError, match="tokenizer_source"):
        plait.plan(recipe(text))
    with pytest.raises(plait.RecipeError, match="first is made by an earlier document"):
        plait.plan(recipe(text + "tokenizer_source: c\n"))


def test_verify_holds_the_sizes_against_each_other(pair, recipe):
    from plait.engine.verify import verify_folder

    path = recipe(LINEAR + "tokenizer_source: union\n")
    plait.merge(path, "out")
    config = json.loads(Path("out/config.json").read_text())
    Path("out/config.json").write_text(json.dumps(config | {"vocab_size": 5}))
    with pytest.raises(plait.MergeError, match=r"several sizes: config.json 5, model.embed_tokens.weight \d+"):
        verify_folder(plait.plan(path), Path("out"))
    Path("out/config.json").write_text(json.dumps(config))
    data = json.loads(Path("out/tokenizer.json").read_text())
    data["added_tokens"].append(data["added_tokens"][-1] | {"id": 500, "content": "far"})
    Path("out/tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(plait.MergeError, match="numbers up to 500"):
        verify_folder(plait.plan(path), Path("out"))
