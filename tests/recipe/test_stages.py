from __future__ import annotations

import itertools

import pytest

from plait.recipe import parse_recipe


def stage(name, *models, extra=""):
    head = f"name: {name}\n" if name else ""
    return head + "models:\n" + "".join(f"  - model: {m}\n" for m in models) + f"merge_method: linear\n{extra}"


def names(text):
    return [recipe.name for recipe in parse_recipe(text, "r.yml")]


THREE = [stage("front", "a/a", "a/b"), stage("back", "front", "a/c"), stage(None, "back", "front+a/lora")]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_stages_run_in_the_order_of_their_needs_whatever_the_file_says(order):
    assert names("---\n".join(THREE[i] for i in order)) == ["front", "back", None]


def test_where_needs_leave_it_open_the_file_decides():
    parts = [stage("z", "a/a"), stage("a", "a/b"), stage("m", "z", "a")]
    assert names("---\n".join(parts)) == ["z", "a", "m"]
    assert names("---\n".join([parts[2], parts[1], parts[0]])) == ["a", "z", "m"]


def test_one_document_may_have_a_name():
    assert names(stage("alone", "a/a")) == ["alone"]


@pytest.mark.parametrize(
    "extra",
    [
        "base_model: one\n",
        "tokenizer_source: one\n",
        "tokenizer: {tokens: {x: {source: {kind: model_token, model: one, token: y}}}}\n",
        "tensors: [{match: x, copy_from: one}]\n",
    ],
)
def test_a_stage_may_be_used_anywhere(extra):
    assert names(stage(None, "a/a", extra=extra) + "---\n" + stage("one", "a/b")) == ["one", None]


def test_where_and_text_are_of_the_whole_file():
    text = "---\n".join(THREE)
    recipes = parse_recipe(text, "r.yml")
    assert [recipe.where.line for recipe in recipes] == [1, 7, 13]
    assert {recipe.text for recipe in recipes} == {text}


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (
            [stage("one", "a/a"), stage("one", "a/b"), stage(None, "one")],
            ["r.yml:6: A document named 'one' already begins on line 1. Give each its own name."],
        ),
        (
            [stage(None, "a/a"), stage(None, "a/b")],
            ["r.yml:5: Only the final document may go without a 'name'; the one on line 1 has none. Name all others."],
        ),
        (
            [stage("one", "two"), stage("two", "one"), stage("three", "three"), stage(None, "one")],
            [
                "r.yml:1: A stage cannot need itself: 'one' uses 'two' uses 'one'.",
                "r.yml:11: A stage cannot need itself: 'three' uses 'three'.",
            ],
        ),
        (
            [stage("one", "a/a"), stage("two", "a/b"), stage(None, "one")],
            ["r.yml:6: Nothing uses stage 'two', and the final document is the one without a name (line 11). Use it as a model, or remove it."],
        ),
        (
            [stage("one", "a/a"), stage("two", "a/b")],
            ["r.yml:1: Nothing uses stage 'one', and the final document is the one 'two' (line 6). Use it as a model, or remove it."],
        ),
        (
            [stage(None, "a/a"), stage("two", "a/b")],
            ["r.yml:5: Nothing uses stage 'two', and the final document is the one without a name (line 1). Use it as a model, or remove it."],
        ),
        (
            [stage("front", "a/a"), stage(None, "front@main")],
            ["r.yml:7: 'front' is a stage of this file and has no revision 'main'. Leave the revision out."],
        ),
        (
            [stage("front", "a/a"), stage(None, "frnt")],
            ["r.yml:7: There is no stage and no folder 'frnt'. Did you mean 'front'? A model of the hub is written owner/name."],
        ),
        (
            [stage("on+e", "a/a"), stage(None, "a/b")],
            ["r.yml:1: The name 'on+e' cannot be used as a model: '@' and '+' have a meaning there. Leave them out."],
        ),
    ],
)  # fmt: skip
def test_faults_of_stages(faults, parts, told):
    assert faults("---\n".join(parts)) == told


def test_a_folder_named_as_a_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "front").mkdir()
    final = parse_recipe("---\n".join(THREE), "r.yml")[-1]
    assert [str(warning) for warning in final.warnings] == [
        "r.yml:15: 'front' is a folder here, but means the stage of that name. Rename one."
    ]
