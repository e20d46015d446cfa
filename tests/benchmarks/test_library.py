"""Every method has a merge that is measured, and the table says of it what was measured."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import plait
from plait.methods import find_method, method_names


@pytest.fixture(scope="module")
def data(bench, tmp_path_factory):
    """Headers of tiny models: enough to plan."""
    folder = tmp_path_factory.mktemp("data")
    synthetic = bench("synthetic")
    synthetic.make_checkpoints(folder, synthetic.Shape(64, 96, 2, 4, 2, 128), 3, sparse=True)
    return folder


@pytest.mark.parametrize("name", method_names())
def test_every_method_has_a_merge_that_can_be_planned(name, bench, data, tmp_path):
    case = bench("library_cases").library_cases()[name]
    assert case.method == name
    assert case.random == bool(find_method(name).random)
    (tmp_path / "recipe.yml").write_text(case.recipe(data, seed=1 if case.random else None))
    assert plait.plan(tmp_path / "recipe.yml").steps


def test_recipes_are_of_three_experts_on_a_base_where_the_method_takes_them(bench):
    cases = bench("library_cases").library_cases()
    ties = yaml.safe_load(cases["ties"].recipe(Path("data")))
    assert [entry["parameters"]["density"] for entry in ties["models"]] == [0.3, 0.3, 0.3]
    assert cases["ties"].reads == ["base", "expert0", "expert1", "expert2"]
    assert cases["widen"].reads == ["base", "expert0", "expert1", "expert2"]
    assert cases["slerp"].reads == ["base", "expert0"]
    assert cases["nuslerp"].reads == ["expert0", "expert1"]
    assert cases["compeft"].density is None, "its own default is the paper's"
    words = bench("library_cases").words
    assert words(cases["ties"]) == "3 on a base, density 0.3"
    assert words(cases["karcher"]) == "3"


def test_bars_are_those_of_the_locality(bench):
    module = bench("library_cases")
    cases = module.library_cases()
    assert [module.bar(cases[name]) for name in ("linear", "ties", "karcher", "della", "widen")] == [
        1.6,
        1.6,
        1.6,
        2.5,
        None,
    ]


def test_a_command_is_stopped_when_its_time_is_up(bench, tmp_path):
    run = bench("measure").run
    code = "import time; time.sleep(60)"
    taken = run([sys.executable, "-I", "-S", "-c", code], tmp_path / "log", limit=0.3)
    assert taken.stopped
    assert 0.3 <= taken.wall < 30
    assert not run([sys.executable, "-I", "-S", "-c", ""], tmp_path / "log", limit=30).stopped
    with pytest.raises(bench("measure").RunFailedError, match="no good"):
        run([sys.executable, "-I", "-S", "-c", "raise SystemExit('no good')"], tmp_path / "log", limit=30)


@pytest.fixture
def one(bench):
    """One run: 2 seconds, 3 of the processors, 5 MB."""
    return bench("measure").Run(2.0, 3.0, 5_000_000)


def test_what_was_measured_is_kept_run_by_run(bench, one, tmp_path):
    kept_type, file = bench("kept").Kept, tmp_path / "library.jsonl"
    kept = kept_type(file, "a machine")
    kept.begin("bench", ["- fact"])
    assert not file.exists()
    kept.add("ties", "plait", "r", "old", one)
    kept.add("ties", "plait", "r", "new", replace(one, wall=4.0))
    kept.add("ties", "mergekit", "r", "0.1", one)
    with file.open("a") as out:
        out.write('{"method": "ties", "wh')  # killed while it wrote
    again = kept_type(file, "a machine")
    again.begin("bench", ["- fact"])
    again.add("ties", "copy", "r", "new", one)
    again = kept_type(file, "a machine")
    assert [record.run.wall for record in again.find("ties", "plait", "r")] == [4.0]
    assert [record.run.wall for record in again.find("ties", "plait", "r", "old")] == [2.0]
    assert len(again.find("ties", "copy", "r", "new")) == 1
    assert again.find("ties", "plait", "another") == []
    with pytest.raises(SystemExit, match="was measured on a machine, this is another"):
        kept_type(file, "another")
    other = kept_type(tmp_path / "other.jsonl", "a machine", [file])
    assert [record.who for record in other.records] == ["mergekit"]


@pytest.fixture
def line(bench, one):
    """A method that takes 1.5 copy limits, and of which mergekit takes twenty times as long."""
    session = bench("kept").Session("2025-01-01 10:00:00", "a machine", "bench", ["- fact"])
    theirs = replace(one, wall=60.0)
    return bench("library_report").LibraryLine(
        "ties", "3", "measured", 1.6, one, replace(one, wall=3.0, cpu=6.0), 3, "b", [session], theirs, [session]
    )


def cells(text, name):
    (found,) = [row for row in text.splitlines() if row.startswith(f"| `{name}` |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_table_says_what_was_measured(bench, line):
    text = bench("library_report").library_section([line])
    assert cells(text, "ties")[1:] == [
        "3",
        "measured",
        "2.00 s",
        "3.00 s",
        "1.50",
        "1.6",
        "met",
        "2.00",
        "5 MB",
        "60 s",
        "20.0",
    ]
    assert "Made by `bench`.\n\n- fact\n\n" in text
    assert "| 1 of 1 |" in text
    assert "`ties` 20.0 (**missed**)" in text
    assert "†" not in text


def test_the_table_says_what_was_missed_stopped_and_measured_apart(bench, line):
    session = bench("kept").Session("2025-01-02 10:00:00", "a machine", "bench 2", ["- fact"])
    stopped = replace(line.mergekit, wall=900.0, stopped=True)
    slow = replace(line, name="della", locality="row", bar=1.4, mergekit=stopped, mergekit_sessions=[session])
    slower = replace(line, name="linear", locality="element", mergekit=replace(stopped, wall=1.5, stopped=False))
    free = replace(line, name="widen", locality="matrix", bar=None, mergekit=None, mergekit_sessions=[])
    text = bench("library_report").library_section([free, slow, slower])
    assert cells(text, "della")[6:8] == ["1.4", "**missed**"]
    assert cells(text, "della")[-2:] == ["stopped after 900 s †", "> 300.0"]
    assert cells(text, "widen")[6:8] == ["", ""]
    assert "† From another run on the same machine (2025-01-02)" in text
    assert "1 of 2; **missed** by `della` 1.50" in text
    assert "1 of 2; **missed** by `linear` 0.5" in text
    assert "`della` more than 300" in text
    assert text.index("| `linear` |") < text.index("| `della` |") < text.index("| `widen` |")


def test_only_what_was_measured_is_written_anew(bench):
    old = "# T\n\nhead\n\n## Merging\n\nold\n\n### Held\n\nprose\n\n## Planning, depth, start\n\nplan\n"
    new = bench("report").with_sections(old, {"## The method library": "## The method library\n\ntable\n\n"})
    assert new == old.replace("## Planning", "## The method library\n\ntable\n\n## Planning")
    again = bench("report").with_sections(new, {"## Merging": "## Merging\n\nnew\n\n"})
    assert "prose" not in again
    assert again.startswith("# T\n\nhead\n\n## Merging\n\nnew\n\n## The method library\n\ntable\n\n## Planning")
