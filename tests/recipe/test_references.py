from __future__ import annotations

import pytest

from plait.recipe import parse_reference
from plait.recipe.types import ModelRef


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/model", ModelRef("org/model")),
        ("org/model@v1", ModelRef("org/model", "v1")),
        ("org/model+org/lora", ModelRef("org/model", None, "org/lora")),
        ("org/model@v1+org/lora@v2", ModelRef("org/model", "v1", "org/lora", "v2")),
        (r"C:\models\one", ModelRef(r"C:\models\one")),
        ("./with space/", ModelRef("./with space/")),
    ],
)
def test_the_parts_of_a_reference(text, expected):
    assert parse_reference(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize("text", ["a@b@c", "a+b+c", "+b", "a+", "@b", "a@", "a@+b", "a+b@"])
def test_what_is_no_reference(text):
    with pytest.raises(ValueError, match=r"empty|more than one|takes one"):
        parse_reference(text)


def test_what_exists_is_taken_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "a+b", "c@d", "e+f@g", "i"):
        (tmp_path / name).mkdir()
    assert parse_reference("a+b") == ModelRef("a+b")
    assert parse_reference("c@d") == ModelRef("c@d")
    assert parse_reference("e+f@g") == ModelRef("e+f@g")
    assert parse_reference("a+b@main") == ModelRef("a+b", "main")
    assert parse_reference("a+b+lora") == ModelRef("a+b", None, "lora")
    assert parse_reference("c@d+lora@x") == ModelRef("c@d", None, "lora", "x")
    assert parse_reference("c@d@x") == ModelRef("c@d", "x")
    assert parse_reference("hub/model+c@d") == ModelRef("hub/model", None, "c@d")
    assert parse_reference("i+a+b") == ModelRef("i", None, "a+b")


def test_the_mapping_takes_a_path_as_it_stands(parse):
    (recipe,) = parse("""\
        models:
          - model: {model: {path: odd+name@x, revision: r1}, lora: {path: "l+l"}}
          - model: {model: org/m@r2, lora: org/l@r3}
          - model: {model: {path: org/m}, lora: null, override_architecture: null}
        merge_method: linear
        """)
    assert [source.model for source in recipe.modules[0].slices[0].sources] == [
        ModelRef("odd+name@x", "r1", "l+l"),
        ModelRef("org/m", "r2", "org/l", "r3"),
        ModelRef("org/m"),
    ]
    assert recipe.warnings == ()
    assert recipe.modules[0].slices[0].sources[1].model.where.line == 3


def test_a_name_too_long_for_the_disk_is_no_accident():
    assert parse_reference("x" * 5000).path == "x" * 5000
