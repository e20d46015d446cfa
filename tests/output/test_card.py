"""The card of the output: front matter that the Hub reads, licences, nothing of this machine."""

from __future__ import annotations

import re

import pytest
import yaml

import plait
from plait.output.card import licence_of
from plait.planning.types import Model

LINEAR = "models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 1}\n"


def front_of(text):
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert found
    return yaml.safe_load(found[1])


@pytest.fixture
def models(write_llama):
    return [write_llama(name, seed) for seed, name in enumerate(("base", "a", "b"))]


def test_front_matter_names_parents_licence_and_tags(recipe, models, card_of, tmp_path):
    for name in ("base", "a", "b"):
        card_of(name, "apache-2.0")
    path = recipe("models: [{model: a}, {model: b}]\nmerge_method: ties\nbase_model: base\nparameters: {weight: 1}\n")
    result = plait.merge(path, tmp_path / "out")
    text = (result.path / "README.md").read_text()
    assert front_of(text) == {
        "base_model": ["base", "a", "b"],
        "license": "apache-2.0",
        "library_name": "transformers",
        "tags": ["merge", "plait", "ties"],
    }
    assert "- `base` (base, config and tokenizer): licence apache-2.0" in text
    assert "21 merged by ties" in text
    assert "merge_method: ties" in text
    assert result.warnings == ()


def test_licences_that_clash_or_restrict_are_warned_of(recipe, models, card_of, tmp_path):
    card_of("a", "apache-2.0")
    card_of("b", "cc-by-nc-4.0")
    result = plait.merge(recipe(LINEAR.replace("{model: b}", "{model: b}, {model: base}")), tmp_path / "out")
    text = (result.path / "README.md").read_text()
    assert "license" not in front_of(text)
    (warning,) = result.warnings
    assert "the parents have different licences (apache-2.0, cc-by-nc-4.0)" in warning
    assert "some restrict use or sharing (cc-by-nc-4.0)" in warning
    assert "none is stated by base" in warning
    assert warning in text


@pytest.mark.parametrize("licence", ["cc-by-sa-4.0", "gemma", "llama3.1", "other", "some-research-licence"])
def test_a_licence_with_strings_attached_is_told_even_when_all_agree(licence, recipe, models, card_of, tmp_path):
    card_of("a", licence)
    card_of("b", licence)
    result = plait.merge(recipe(LINEAR), tmp_path / "out")
    assert "some restrict use or sharing" in result.warnings[0]
    assert front_of((result.path / "README.md").read_text())["license"] == licence


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: mit\n---\nx", "mit"),
        ("---\r\nlicense: mit\r\n---\r\nx", "mit"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("# no front matter\nlicense: mit\n", None),
        ("---\n: [broken\n---\n", None),
        ("---\n- a list\n---\n", None),
    ],
)
def test_a_licence_is_read_from_front_matter_alone(text, licence, tmp_path):
    (tmp_path / "README.md").write_bytes(text.encode())
    assert licence_of(Model("m", tmp_path, None)) == licence


def test_absolute_paths_stay_at_home(recipe, models, card_of, tmp_path):
    other = tmp_path / "elsewhere" / "a"
    other.parent.mkdir()
    (tmp_path / "b").rename(other)
    path = recipe(
        f"models: [{{model: {tmp_path}/a}}, {{model: {other}}}]\nmerge_method: linear\nparameters: {{weight: 1}}\n"
        "tensors: [{match: '*norm*', drop: true}]\n"
    )
    out = plait.merge(path, tmp_path / "out", verify=False).path
    for file in ("README.md", "plait.lock", "plait_recipe.yml"):
        assert str(tmp_path) not in (out / file).read_text()
    assert front_of((out / "README.md").read_text())["base_model"] == ["a", "a-2"]


def test_a_recipe_with_fences_stays_inside_its_own(recipe, models, tmp_path):
    path = recipe(LINEAR + 'chat_template: "```{{ x }}```"\n')
    text = (plait.merge(path, tmp_path / "out").path / "README.md").read_text()
    assert "\n````yaml\n" in text


def test_the_same_merge_writes_the_same_card_whatever_the_threads(recipe, models, tmp_path):
    cards = []
    for threads in (1, 2):
        out = plait.merge(recipe(LINEAR), tmp_path / str(threads) / "out", threads=threads).path
        cards.append((out / "README.md").read_bytes())
    assert cards[0] == cards[1]
