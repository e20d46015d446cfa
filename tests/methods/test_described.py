"""What is said of methods: everything that a user needs to be told, at any width, and recipes that run."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest
import yaml
from golden.case import tables

import plait
from plait.methods import MethodError, find_method, method_names
from plait.methods.describe import as_markdown, describe, listing
from plait.methods.facts import LOCALITIES, advice, as_data, cost, example, short, without_advice

ROOT = Path(__file__).parents[2]
METHODS = method_names()
STEPS = method_names(post=True)
PAGE = (ROOT / "docs/methods.md").read_text()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_all_that_it_needs(name):
    method = find_method(name)
    assert method.paper.startswith("https://"), "a paper"
    assert re.match(r"[A-Z]", method.summary), "a summary"
    assert re.search(r"[.:`]$", method.summary), "a summary that is a sentence"
    assert len(short(method)) <= 120, "a summary that fits a line"
    assert re.match(r"Use it [^.].*\.$", advice(method)), "a paragraph of the docstring that begins 'Use it'"
    assert name in tables().GOLDEN, "a golden case"
    assert f"\n## {name}\n" in PAGE, "an entry in docs/methods.md: run `make docs`"
    assert cost(method), "its cost: run benchmarks/method_costs.py"
    for parameter in method.parameters.values():
        assert parameter.summary.endswith("."), "a sentence for each parameter"


def test_costs_are_of_methods_that_there_are():
    costs = json.loads((ROOT / "plait/methods/costs.json").read_text())
    assert costs["ns"].keys() <= set(METHODS)
    assert all(value > 0 for found in costs["ns"].values() for value in found.values())


@pytest.mark.parametrize("name", METHODS)
def test_the_minimal_recipe_runs(name, write_llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = example(find_method(name)).replace("org/", "")
    recipe = yaml.safe_load(text)
    for seed, model in enumerate(
        sorted({recipe.get("base_model", ""), *(m["model"] for m in recipe["models"])} - {""})
    ):
        write_llama(model, 0, change=lambda arrays, by=seed: _shift(arrays, by))
    Path("recipe.yml").write_text(text)
    plait.merge("recipe.yml", "out")
    assert Path("out/model.safetensors").is_file()


def _shift(arrays, seed):
    for number, array in enumerate(arrays.values()):
        array.flat[seed + number % 3 :: 3] += 0.1 * seed


@pytest.mark.parametrize("name", METHODS)
def test_the_recipe_takes_as_many_models_as_are_wanted(name):
    method = find_method(name)
    for wanted in (1, 2, 4, 16):
        count = len(yaml.safe_load(example(method, wanted=wanted))["models"])
        assert method.min_models <= count <= (method.max_models or count)
        assert count == wanted or count in {method.min_models, method.max_models}


def test_the_list_has_every_method_once_under_its_locality():
    seen: dict[str, list[str]] = {}
    title = ""
    for line in listing().splitlines():
        if line.startswith("  "):
            seen[title].append(line.split()[0])
        elif line:
            title = line.split(":")[0]
            seen[title] = []
    assert seen.pop("Steps for `post") == list(STEPS)
    assert [*seen] == [locality for locality in LOCALITIES if locality in seen]
    assert {name: locality for locality, names in seen.items() for name in names} == {
        name: find_method(name).locality for name in METHODS
    }


@pytest.mark.parametrize("width", [20, 30, 59, 60, 79, 80, 132])
def test_nothing_is_wider_than_the_terminal(width):
    texts = [listing(width), *(describe(name, width) for name in (*METHODS, *STEPS))]
    for line in (line for text in texts for line in text.split("\nRecipe\n")[0].splitlines()):
        unbroken = max(map(len, line.split()), default=0) + 10  # addresses and formulas stay whole
        assert len(line) <= max(width, unbroken), line


def test_a_wide_terminal_has_a_line_for_each_method():
    for width in (60, 80, 120):
        lines = listing(width).splitlines()
        assert sum(line.startswith("  ") for line in lines) == len(METHODS) + len(STEPS)
    assert "  linear\n    Average the models'" in listing(40)


@pytest.mark.parametrize("name", METHODS)
def test_a_description_has_it_all(name):
    method = find_method(name)
    text = describe(name)
    for part in (method.paper, method.locality, *without_advice(method).splitlines(), advice(method), example(method)):
        assert part.splitlines()[0].strip() in text if part else True
    for parameter, declared in method.parameters.items():
        assert f"\n  {parameter}  {declared.range_text()}" in text
        assert declared.summary in text


@pytest.mark.parametrize("name", METHODS)
def test_plain_data_say_the_same(name):
    method = find_method(name)
    data = json.loads(json.dumps(as_data(method)))
    assert data["name"] == name
    assert [one["name"] for one in data["parameters"]] == [*method.parameters]
    assert {one["name"] for one in data["parameters"] if one["required"]} == set(method.parameters) - set(
        method.defaults
    )
    assert yaml.safe_load(data["recipe"])["merge_method"] == name
    assert data["when"].startswith("Use it")
    assert data["when"] not in data["description"]


def test_post_steps_are_described_too():
    text = describe("clamp")
    assert text.startswith("clamp\n")
    assert "\n  value  a number, 0 or more; required" in text
    with pytest.raises(MethodError, match="Did you mean 'ties'"):
        describe("tis")


def test_advice_is_a_paragraph_of_the_docstring(monkeypatch):
    method = find_method("linear")
    text = "Sum. `[k, *shape] -> [*shape]`.\n\nMore. Use it not.\n\nUse it\nwhen.\n\nRaises:\n    Much."
    monkeypatch.setattr(inspect, "getdoc", lambda _: text.replace("it\nwhen", "it when"))
    assert (short(method), advice(method)) == ("Sum.", "Use it when.")
    assert without_advice(method) == "Sum. `[k, *shape] -> [*shape]`.\n\nMore. Use it not.\n\nRaises:\n    Much."
    monkeypatch.setattr(inspect, "getdoc", lambda _: "Sum.\n\nMore.")
    assert (advice(method), without_advice(method)) == ("", "Sum.\n\nMore.")


def test_the_page_has_a_recipe_and_the_advice_of_every_method():
    page = as_markdown()
    for name in METHODS:
        part = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert f"merge_method: {name}\n" in part
        assert advice(find_method(name)) in part
