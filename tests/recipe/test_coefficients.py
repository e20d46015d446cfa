"""Numbers a layer, in the recipe and in files beside it."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plait.errors import RecipeError, Where
from plait.recipe import evaluate, load_recipe, parse_recipe, resolve
from plait.recipe.types import Column, PerLayer, Setting

HERE = Where("r.yml", 1)
HEAD = "models: [{model: a/a}, {model: b}]\nmerge_method: linear\n"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Read a recipe that has `weight: {file: c.EXTENSION}`, beside a file of that content."""
    monkeypatch.chdir(tmp_path)

    def read(content, extension="csv", recipe=HEAD + "parameters: {weight: {file: c.%s}}\n"):
        (tmp_path / f"c.{extension}").write_text(content)
        (tmp_path / "r.yml").write_text(recipe % extension if "%s" in recipe else recipe)
        return load_recipe("r.yml")[0]

    return read


def columns(recipe):
    return {column.model: column.numbers for column in recipe.parameters["weight"].value.columns}


@pytest.mark.parametrize(
    ("extension", "content", "read"),
    [
        ("csv", "0.5\n1\n-2e-3\n", {None: (0.5, 1.0, -0.002)}),
        ("csv", "# from a search\nvalue\n0.5\n\n1\n", {None: (0.5, 1.0)}),
        ("csv", "weight\n0.5\n1\n", {None: (0.5, 1.0)}),
        ("csv", "layer,weight\n1,0.5\n0,.25\n", {None: (0.25, 0.5)}),
        ("csv", "layer, a/a, b\r\n0,1,2\r\n1,3,4\r\n", {"a/a": (1.0, 3.0), "b": (2.0, 4.0)}),
        ("csv", "b,layer,a/a\n1,1,2\n3,0,4\n", {"b": (3.0, 1.0), "a/a": (4.0, 2.0)}),
        ("csv", "a/a\n1\n", {"a/a": (1.0,)}),
        ("json", "[0.5, 1, 1e-3]", {None: (0.5, 1.0, 0.001)}),
        ("json", '{\n\t"a/a": [1, 2],\n\t"b": [3, 4]\n}', {"a/a": (1.0, 2.0), "b": (3.0, 4.0)}),
        ("yml", "- 0.5\n- 1e-3\n", {None: (0.5, 0.001)}),
        ("yaml", "a/a: [1]\nb: [2]\n", {"a/a": (1.0,), "b": (2.0,)}),
    ],
)
def test_files(load, extension, content, read):
    recipe = load(content, extension)
    assert columns(recipe) == read
    assert recipe.parameters["weight"].value.file == f"c.{extension}"
    # The recipe's text stands alone: read again, from anywhere, it means the same.
    (again,) = parse_recipe(recipe.text, "elsewhere/r.yml")
    assert columns(again) == read
    assert "file" not in recipe.text


@given(st.lists(st.floats(-1e15, 1e15), min_size=1, max_size=8), st.sampled_from(["csv", "json"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_every_number_is_read_and_written_out_as_it_is(load, numbers, extension):
    recipe = load(json.dumps(numbers) if extension == "json" else "\n".join(map(repr, numbers)), extension)
    (again,) = parse_recipe(recipe.text)
    assert columns(recipe) == columns(again) == {None: tuple(numbers)}


def test_numbers_know_their_lines(load):
    (column,) = load("# x\nlayer,value\n1,5\n\n0,6\n").parameters["weight"].value.columns
    assert [str(place) for place in column.places] == ["c.csv:5", "c.csv:3"]
    (column,) = load("[\n1,\n2]", "json").parameters["weight"].value.columns
    assert [str(place) for place in column.places] == ["c.json:2", "c.json:3"]


def test_the_name_is_relative_to_the_recipe(tmp_path):
    (tmp_path / "recipes" / "numbers").mkdir(parents=True)
    (tmp_path / "recipes" / "numbers" / "c.csv").write_text("1\n2\n")
    (tmp_path / "recipes" / "r.yml").write_text(HEAD + "parameters: {weight: {file: numbers/c.csv}}\n")
    (recipe,) = load_recipe(tmp_path / "recipes" / "r.yml")
    assert columns(recipe) == {None: (1.0, 2.0)}


BLOCK = """\
models:
  - model: a/a
    parameters:
      weight: &w
        file: c.csv  # from a search
      density: 0.5
  - model: b
    parameters:
      weight: *w
merge_method: ties
base_model: base
parameters:
  scale:
    - filter: mlp
      value: {file: "c.csv"}
    - value: 1
"""


def test_the_text_is_written_out_in_place(load):
    recipe = load("0.5\n1\n", recipe=BLOCK)
    assert recipe.text == BLOCK.replace("file: c.csv", "layers: [0.5, 1.0]").replace(
        'file: "c.csv"', "layers: [0.5, 1.0]"
    )
    (again,) = parse_recipe(recipe.text, "r.yml")
    for one in (recipe, again):
        for given_ in one.modules[0].slices[0].sources:
            assert given_.parameters["weight"].value.columns[0].numbers == (0.5, 1.0)
        assert one.parameters["scale"].value[0].value.columns[0].numbers == (0.5, 1.0)
    assert again == recipe


@pytest.mark.parametrize("layers", range(1, 200, 7))
def test_each_layer_has_its_own_number_exactly(layers):
    numbers = tuple(0.1 * i for i in range(layers))
    setting = Setting(PerLayer((Column(None, numbers, (HERE,) * layers),)), HERE)
    for i in range(layers):
        t = i / (layers - 1) if layers > 1 else 1.0
        assert evaluate(setting, "x", t)[0] == numbers[i]
    assert evaluate(setting, "x", 0)[0] == numbers[0]
    assert evaluate(setting, "x", 1)[0] == numbers[-1]


def test_a_model_has_its_own_column_or_the_next_level_is_asked():
    setting = Setting(PerLayer((Column("a", (1.0, 2.0), (HERE, HERE)), Column("b", (3.0, 4.0), (HERE, HERE)))), HERE)
    levels = [("recipe", {"p": setting}), ("more", {"p": Setting(9, HERE)})]
    found = {model: resolve("p", "x", 1.0, levels, model=model).value for model in ("a", "b", "c")}
    assert found == {"a": 2.0, "b": 4.0, "c": 9}


def test_the_note_says_which_layer_and_where_it_is_written(load):
    recipe = load("layer,a/a,b\n0,1,2\n1,3,4\n")
    found = resolve("weight", "x", 1.0, [("recipe", recipe.parameters)], model="b")
    assert (found.value, found.layers, found.note) == (4.0, 2, "c.csv:3, layer 1 of 2")
    inline = parse_recipe(recipe.text)[0].parameters
    assert resolve("weight", "x", 0.0, [("recipe", inline)], model="a/a").note == "layer 0 of 2"


@pytest.mark.parametrize(
    ("extension", "content", "told"),
    [
        ("csv", "", "c.csv:1: There are no numbers in this file. Write a row for each layer."),
        ("csv", "value\n", "c.csv:1: There are no numbers in this file. Write a row for each layer."),
        ("csv", "layer\n0\n", "c.csv:1: There are no numbers in this file. Write a row for each layer."),
        ("csv", "1,2\n3,4\n", "c.csv:1: The 2 columns have no names. Begin with a row such as `layer,org/model-a,org/model-b`."),
        ("csv", "b,b\n3,4\n", "c.csv:1: Two columns are called 'b'."),
        ("csv", "b,\n3,4\n", "c.csv:1: A column has no name."),
        ("csv", "a/a,b\n3,4\n3\n", "c.csv:3: The row has 1 cells; expected 2."),
        ("csv", "1\n2\nx\n", "c.csv:3: Expected a number, not 'x'."),
        ("csv", "1\nnan\n", "c.csv:2: Expected a number, not 'nan'."),
        ("csv", "1\n1e400\n", "c.csv:2: Expected a number, not '1e400'."),
        ("csv", "layer,value\n0,1\n0.5,1\n", "c.csv:3: A layer is a whole number from 0 up, not 0.5."),
        ("csv", "layer,value\n0,1\n1,1\n0,1\n", "c.csv:4: Layer 0 has a row already, on line 2."),
        ("csv", "layer,value\n0,1\n2,1\n4,1\n", "c.csv:1: There is no row for layer 1, 3. Layers are counted from 0."),
        ("json", "", "c.json:1: Expected one list or mapping for parameter 'weight'."),
        ("json", "[1, 2", "c.json:1: This is not valid YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'."),
        ("json", "3", "c.json:1: The file of parameter 'weight' must be a list of numbers, one a layer, or a mapping from models to such lists."),
        ("json", "[]", "c.json:1: The file of parameter 'weight' is empty."),
        ("json", "{}", "c.json:1: The file of parameter 'weight' is empty."),
        ("json", '[1,\n"x"]', "c.json:2: The file of parameter 'weight': expected a number, not `\"x\"`."),
        ("json", "[1,\ntrue]", "c.json:2: The file of parameter 'weight': expected a number, not `true`."),
        ("json", "[1,\n[2]]", "c.json:2: Expected a single value, not `[2]`."),
        ("yml", "a/a: [1, 2]\nb: [1]\n", "c.yml:1: The file of parameter 'weight': the models' lists have 1 and 2 numbers."),
        ("txt", "1", "r.yml:3: Parameter 'weight': c.txt is none of .csv, .json, .yml, .yaml."),
    ],
)  # fmt: skip
def test_faults_of_files(load, extension, content, told):
    with pytest.raises(RecipeError) as caught:
        load(content, extension)
    assert [str(fault) for fault in caught.value.faults] == [told]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("{file: none.csv}", "Parameter 'weight': cannot read none.csv: No such file or directory. Its name is relative to the recipe's folder."),
        ("{file: 3}", "'file' of parameter 'weight' must be a file's name, written out: not `3`."),
        ("{file: &x c.csv}", "'file' of parameter 'weight' must be a file's name, written out: not `&x c.csv`."),
        ("{file: c.csv, layers: [1]}", "Parameter 'weight' takes 'file' or 'layers', not both."),
        ("{file: c.csv, value: 1}", "Parameter 'weight' has no key 'value'. It takes: file, layers."),
        ("{layers: []}", "'layers' of parameter 'weight' is empty."),
        ("{layers: 3}", "'layers' of parameter 'weight' must be a list of numbers, one a layer, or a mapping from models to such lists."),
        ("{layers: {a/a: 3}}", "'layers' of parameter 'weight', a/a must be a list, not `3`."),
        ("{layers: [a]}", "'layers' of parameter 'weight': expected a number, not `a`."),
    ],
)  # fmt: skip
def test_faults_of_values(load, value, told):
    with pytest.raises(RecipeError) as caught:
        load("1\n", recipe=HEAD + f"parameters: {{weight: {value}}}\n")
    assert [str(fault) for fault in caught.value.faults] == [f"r.yml:3: {told}"]


def test_a_file_that_is_no_text(load, tmp_path):
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe1")
    (tmp_path / "r.yml").write_text(HEAD + "parameters: {weight: {file: c.csv}}\n")
    with pytest.raises(RecipeError, match=r"r\.yml:3: Parameter 'weight': cannot read c\.csv: is not UTF-8 text"):
        load_recipe("r.yml")
