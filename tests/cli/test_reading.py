"""Commands that write nothing: plan, explain, inspect, methods, completion; and what the program says of itself."""

from __future__ import annotations

import json

import pytest

import plait as package


def test_the_plan_writes_nothing(house, plait):
    before = sorted(house.rglob("*"))
    text = plait("plan", "ties.yml").out
    assert text.startswith("Inputs\n")
    assert "Tensors (21)" in text
    assert sorted(house.rglob("*")) == before


def test_the_plan_as_json_lists_every_tensor(house, plait):
    data = json.loads(plait("plan", "ties.yml", "--json", "--seed", "7").out)
    assert len(data["tensors"]) == 21
    assert data["seed"] == 7
    one = next(tensor for tensor in data["tensors"] if tensor["name"] == "model.norm.weight")
    assert one["method"] == "ties"
    assert one["parameters"]["weight"] == [0.5, 0.25]


def test_the_plan_groups_layers_unless_asked(house, plait):
    short, long = plait("plan", "ties.yml").out, plait("plan", "ties.yml", "-v").out
    assert "model.layers.*.mlp.up_proj.weight" in short
    assert "model.layers.1.mlp.up_proj.weight" in long
    assert len(long.splitlines()) > len(short.splitlines())


def test_explain_names_the_line_of_every_value(house, plait):
    text = plait("explain", "ties.yml", "*norm.weight").out
    assert "ties.yml:3" in text
    assert "default" in text
    data = json.loads(plait("explain", "ties.yml", "model.norm.weight", "--json").out)
    assert [entry["name"] for entry in data] == ["model.norm.weight"]


def test_explain_with_a_glob_that_matches_nothing(house, plait):
    failed = plait("explain", "ties.yml", "no.such.*", "--json")
    assert failed.code == 2
    assert json.loads(failed.out)["event"] == "error"
    assert "no.such.*" in failed.err


def test_inspect_says_what_is_there(house, plait):
    text = plait("inspect", "a").out
    assert "LlamaForCausalLM" in text
    assert "model.layers 2" in text
    assert "lm_head.weight" in text
    assert "×" not in text
    assert "12×8" in plait("inspect", "a", "--tensors").out


def test_inspect_as_json(house, plait):
    data = json.loads(plait("inspect", "a", "--json", "--tensors").out)
    sizes = sum(entry["bytes"] for entry in data["all_tensors"])
    assert (data["tensors"], data["bytes"], data["parameters"]) == (21, sizes, sizes // 4)
    assert (data["layers"], data["tied_by_config"]) == ({"model.layers": 2}, False)


def test_inspect_of_nothing(house, plait):
    failed = plait("inspect", "nowhere", "--json")
    assert (failed.code, json.loads(failed.out)["kind"]) == (2, "CheckpointError")
    assert failed.err.startswith("plait: nowhere: ")


def test_methods_are_listed_each_on_a_line(plait):
    lines = plait("methods").out.splitlines()
    assert any(
        line.startswith("  ties ")
        for line in lines[lines.index("measured: entry by entry, after something was measured") :]
    )
    assert "Steps for `post:`" in lines


def test_methods_fit_the_terminal(plait, monkeypatch):
    monkeypatch.setenv("COLUMNS", "44")
    wide = plait("methods").out
    monkeypatch.setattr("plait.cli.methods.is_terminal", lambda: True)
    narrow = plait("methods").out
    assert max(map(len, wide.splitlines())) > 80
    assert max(map(len, narrow.splitlines())) <= 44
    assert "\n  ties\n    Keep each delta's" in narrow
    assert "\nSource    https://arxiv.org/abs/2306.01708\n" in plait("methods", "ties").out


def test_methods_as_json(plait):
    every = json.loads(plait("methods", "--json").out)
    (ties,) = [one for one in every if one["name"] == "ties"]
    assert ties == json.loads(plait("methods", "ties", "--json").out)
    assert ties["locality"] == "measured"
    failed = plait("methods", "tis", "--json")
    assert (failed.code, json.loads(failed.out)["kind"]) == (2, "MethodError")


def test_one_method(plait):
    text = plait("methods", "slerp").out
    assert text.startswith("slerp\n")
    assert "exactly" not in text
    assert "  t  " in text
    assert "merge_method: slerp" in text


def test_a_method_misspelt(plait):
    failed = plait("methods", "tis")
    assert (failed.code, failed.out) == (2, "")
    assert "Did you mean 'ties'?" in failed.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("mrege",), "Did you mean 'merge'?"),
        (("merge", "--treads", "2"), "--threads"),
        (("merge", "r.yml"), "OUT"),
        (("merge", "r.yml", "out", "--memory", "5x"), "Write it as 500M, 5GB, 1GiB"),
        (("merge", "r.yml", "out", "--threads", "0"), "--threads"),
        (("plan", "r.yml", "--methods", "none.py"), "none.py"),
        (("completion", "tcsh"), "tcsh"),
    ],
)
def test_wrong_use_is_told_on_stderr_with_2(plait, arguments, said):
    failed = plait(*arguments)
    assert (failed.code, failed.out) == (2, "")
    assert said in failed.err


def test_help_and_version(plait):
    assert plait("--version").out == f"plait, version {package.__version__}\n"
    assert plait().code == 2
    for words in (("--help",), ("-h",), ("merge", "-h")):
        shown = plait(*words)
        assert shown.code == 0
        assert shown.out.startswith("Usage: plait")


@pytest.mark.parametrize("command", ["merge", "plan", "explain", "methods", "inspect", "completion"])
def test_every_option_has_a_help_text(plait, command):
    text = plait(command, "--help").out
    for line in text[text.index("Options:") :].splitlines()[1:]:
        if line.startswith("  -"):
            assert len(line.split("  ")) > 2 or len(line) > 25, line


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("plait me", {"merge", "methods"}),
        ("plait methods da", {"dare_linear", "dare_ties"}),
        ("plait merge --al", {"--allow-nonfinite"}),
        ("plait completion b", {"bash"}),
    ],
)
def test_completion(plait, monkeypatch, words, found):
    monkeypatch.setenv("_PLAIT_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert {line.partition(",")[2] for line in plait().out.splitlines()} == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(plait, shell):
    assert "_PLAIT_COMPLETE" in plait("completion", shell).out
