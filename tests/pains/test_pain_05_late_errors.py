"""Pain 5: errors that come late and say little. Headers are enough to know, and everything is told at once."""

from __future__ import annotations

import pytest

TWO = "models: [{model: a}, {model: b}]\n"
CASES = {
    "a method misspelt (mk#527)": (
        TWO + "merge_method: dare-ties\nbase_model: a\n",
        ["There is no merge method 'dare-ties'. Did you mean 'dare_ties'?"],
    ),
    "layers that are not there (mk#51)": (
        "slices:\n- sources: [{model: a, layer_range: [0, 99]}]\nmerge_method: passthrough\n",
        ["layer_range [0, 99] is outside a, which has 2 layers (0 to 1)."],
    ),
    "no layers (mk#360)": (
        "slices:\n- sources: [{model: a, layer_range: [0, 0]}]\nmerge_method: passthrough\n",
        ["[0, 0]"],
    ),
    "a weight that is missing (mk#21, mk#348, mk#611)": (
        TWO + "merge_method: linear\n",
        ["linear needs 'weight' for a", "linear needs 'weight' for b", "Set it under"],
    ),
    "no base (mk#643)": (
        TWO + "merge_method: ties\nparameters: {weight: 1}\n",
        ["ties works on differences from a base model; there is none.", "Name it with `base_model`."],
    ),
    "a model that is not there": (
        "models: [{model: a}, {model: nowhere}]\nmerge_method: linear\nparameters: {weight: 1}\n",
        ["nowhere: no such file or folder"],
    ),
    "many at once": (
        TWO + "merge_method: ties\nbase_model: a\nparamters: {}\nparameters:\n  densty: 1\n  weight: dase\n",
        [
            "'paramters'",
            "Did you mean 'parameters'?",
            "'densty' (recipe). Did you mean 'density'?",
            "'dase'",
            "3 faults",
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_told_before_anything_is_read_or_written(case, cli, model, tmp_path):
    text, told = CASES[case]
    for seed, name in enumerate("ab"):
        file = model(name, seed=seed) / "model.safetensors"
        # The weights are gone: only the header is left, and the file's length.
        size, kept = file.stat().st_size, 8 + int.from_bytes(file.read_bytes()[:8], "little")
        with file.open("r+b") as stream:
            stream.truncate(kept)
            stream.truncate(size)
    done = cli("merge", "out", says=text)
    assert done.code == 2
    for words in told:
        assert words in done.err
    assert "r.yml:" in done.err
    assert done.err.rstrip().endswith("nothing was written.")
    assert not list(tmp_path.glob("out*"))


def test_models_of_other_sizes_are_refused_in_a_sentence(cli, model):
    """mk#676, mk#542: a clear no, with what differs."""
    model("a")
    model("b", hidden_size=24, intermediate_size=40)
    done = cli("merge", "out", says=TWO + "merge_method: linear\nparameters: {weight: 1}\n")
    assert done.code == 2
    assert "is [24] in b" in done.err or "[48, 24] in b" in done.err
    assert done.err.count("\n") < 12


def test_a_shard_that_is_missing_is_named_with_the_way_out(cli, model, rewrite):
    model("a")
    file = model("b", seed=1) / "model.safetensors"
    file.rename(file.with_name("model-00001-of-00002.safetensors"))
    done = cli("merge", "out", says=TWO + "merge_method: linear\nparameters: {weight: 1}\n")
    assert done.code == 2
    assert "1 of 2 shards are missing: model-00002-of-00002.safetensors. Fetch them again." in done.err
