"""What the planner refuses: everything at once, with its line, before anything is made."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import plait.cli

TWO = "models:\n  - model: a\n  - model: b\n"
WEIGHT = "parameters: {weight: 0.5}\n"
CASES = {
    "method": (
        TWO + "merge_method: tise\nbase_model: base\n",
        ["r.yml:4: There is no merge method 'tise'. Did you mean 'ties'?"],
    ),
    "parameter": (
        TWO + "merge_method: ties\nbase_model: base\nparameters:\n  weight: 1\n  densty: 0.5\n",
        ["r.yml:8: ties has no parameter 'densty' (recipe). Did you mean 'density'? It takes: "],
    ),
    "range": (
        TWO + "merge_method: ties\nbase_model: base\nparameters:\n  weight: 1\n  density: [0.5, 1.5]\n",
        ["r.yml:8: ties: density = 1.5 (recipe); expected a number from 0 to 1."],
    ),
    "text for a number": (
        TWO + "merge_method: linear\nparameters:\n  weight: high\n",
        ["r.yml:6: linear: weight = 'high' (recipe); expected a number."],
    ),
    "one value for all": (
        "models:\n  - model: a\n    parameters:\n      normalize: false\n  - model: b\nmerge_method: linear\n" + WEIGHT,
        ["r.yml:4: 'normalize' is one value for all models, not one a model (model 'a')."],
    ),
    "two names of one parameter": (
        TWO + "merge_method: ties\nbase_model: base\nparameters: {weight: 1, scale: 1,\n  lambda: 2}\n",
        ["r.yml:7: 'lambda' and 'scale' are the same parameter (recipe). Keep one."],
    ),
    "weights that cancel": (
        "models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: -1}}]\nmerge_method: linear\n",
        ["r.yml:2: linear: the weights [1.0, -1.0] add up to 0 and are divided by their sum; change one, or set "],
    ),
    "numbers that do not go together": (
        TWO + "merge_method: cabs\nbase_model: base\nparameters: {weight: 1, n: 5, m: 4}\n",
        ["r.yml:4: cabs: it keeps n = 5 of m = 4 entries; expected at most all of them (21 tensors, such as "],
    ),
    "filter": (
        TWO + "merge_method: linear\nparameters:\n  weight:\n  - filter: self_atn\n    value: 1\n  - value: 0.5\n",
        ["r.yml:7: filter 'self_atn' matches no tensor. Did you mean 'self_attn'?"],
    ),
    "too many models": (
        TWO + "  - model: base\nmerge_method: slerp\nbase_model: a\nparameters: {t: 0.5}\n",
        ["r.yml:5: slerp takes exactly 2 models; there are 3. Given: a, b, base."],
    ),
    "no base": (
        TWO + "merge_method: ties\n" + WEIGHT,
        ["r.yml:4: ties works on differences from a base model; there is none."],
    ),
    "no first": (TWO + "merge_method: slerp\nparameters: {t: 0.5}\n", ["r.yml:4: slerp starts from `base_model`"]),
    "base alone": (
        "models:\n  - model: base\nmerge_method: task_arithmetic\nbase_model: base\n" + WEIGHT,
        ["r.yml:3: task_arithmetic takes at least 1 model besides the base; there are 0."],
    ),
    "missing weight": (
        "models:\n  - model: a\n    parameters: {weight: 1}\n  - model: b\nmerge_method: linear\n",
        ["r.yml:5: linear needs 'weight' for b; nothing sets it for 21 tensors, such as lm_head.weight."],
    ),
    "no model": (
        TWO + "  - model: nowhere\nmerge_method: linear\n" + WEIGHT,
        ["r.yml:4: nowhere: no such file or folder"],
    ),
    "layer range": (
        "slices:\n- sources:\n  - model: a\n    layer_range: [1, 3]\nmerge_method: passthrough\n",
        ["r.yml:3: layer_range [1, 3] is outside a, which has 2 layers (0 to 1)."],
    ),
    "adapter": (
        "models:\n  - model: a+b\nmerge_method: passthrough\n",
        ["r.yml:2: b: no adapter_config.json in "],
    ),
    "rule": (
        TWO + "merge_method: linear\n" + WEIGHT + "tensors:\n  - match: '*.q_prj.*'\n    drop: true\n",
        ["r.yml:7: rule '*.q_prj.*' matches no output tensor"],
    ),
    "rule's own parameter": (
        TWO
        + "merge_method: ties\nbase_model: base\n"
        + WEIGHT
        + "tensors:\n  - match: '*norm*'\n    merge_method: linear\n    parameters: {density: 1}\n",
        ["r.yml:10: linear has no parameter 'density' (tensors '*norm*')."],
    ),
    "copy of what is not there": (
        TWO + "merge_method: linear\n" + WEIGHT + "tensors:\n  - match: model.norm.weight\n    copy_from: headless\n",
        ["r.yml:7: headless has no tensor 'model.norm.weight' to copy."],
    ),
    "post in weight space": (
        TWO + "merge_method: linear\n" + WEIGHT + "post:\n  - scale: 0.5\n",
        ["r.yml:7: post step scale works on what a method adds to the base; linear gives weights"],
    ),
    "post's name": (
        TWO + "merge_method: ties\nbase_model: base\n" + WEIGHT + "post:\n  - scal: 0.5\n",
        ["r.yml:8: There is no post-step 'scal'. Did you mean 'scale'?"],
    ),
    "scope": (
        TWO + "merge_method: ties\nbase_model: base\nparameters: {weight: 1, scope: model, density: [0.2, 0.8]}\n",
        ["r.yml:4: ties: scope: model needs one density a model for all tensors; it is "],
    ),
    "seeds": (
        "name: one\nseed: 1\n"
        + TWO
        + "merge_method: linear\n"
        + WEIGHT
        + "---\nseed: 2\nmodels:\n  - model: one\nmerge_method: passthrough\n",
        ["r.yml:9: The documents state different seeds"],
    ),
    "template": (
        "chat_template: chatml2\n" + TWO + "merge_method: linear\n" + WEIGHT,
        ["r.yml:1: chat_template: 'chatml2' is neither a Jinja template nor the name of one. Did you mean 'chatml'?"],
    ),
    "template's name": (
        "chat_template: atuo\n" + TWO + "merge_method: linear\n" + WEIGHT,
        ["r.yml:1: chat_template: 'atuo' is neither a Jinja template nor the name of one. Did you mean 'auto'?"],
    ),
    "token rule": (
        TWO
        + "merge_method: linear\n"
        + WEIGHT
        + "tokenizer:\n  source: base\n  tokens:\n    x: {source: a}\nbase_model: a\n",
        ["r.yml:7: tokenizer: a has no tokenizer that plait can read."],
    ),
    "module": (
        "modules:\n  vision:\n    models: [{model: a}, {model: b}]\nmerge_method: linear\n" + WEIGHT,
        ["r.yml:3: module 'vision' is no part of a. Parts: embed_tokens, layers, lm_head, model, norm."],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_told_with_its_line_and_alone(case, faults, llamas, write_llama):
    write_llama("headless", 5, change=lambda arrays: arrays.pop("model.norm.weight"))
    text, wanted = CASES[case]
    told = faults(text)
    assert len(told) == len(wanted), told
    for one, start in zip(told, wanted, strict=True):
        assert one.startswith(start), one


def test_all_faults_come_at_once_and_nothing_is_made(recipe, llamas, tmp_path, monkeypatch, capsys):
    path = recipe("""\
        models:
          - model: a
            parameters: {weight: 1, densty: 0.5}
          - model: b
        merge_method: ties
        base_model: base
        parameters:
          density: 2
          weight: [{filter: mlpp, value: 1}]
        tensors:
          - {match: nothing, drop: true}
        """)
    monkeypatch.setattr(sys, "argv", ["plait", "merge", path, "out"])
    with pytest.raises(SystemExit) as stopped:
        plait.cli.main()
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    for part in (
        "r.yml:3: ",
        "r.yml:5: ties needs 'weight' for b",
        "r.yml:8: ",
        "r.yml:9: filter 'mlpp'",
        "r.yml:11: rule",
    ):
        assert part in told
    assert "5 faults; nothing was written." in told
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_faults_of_all_documents_come_at_once(faults, llamas):
    told = faults("""\
        name: one
        models: [{model: a}, {model: nowhere}]
        merge_method: linear
        parameters: {wieght: 1}
        ---
        models: [{model: one}, {model: absent}]
        merge_method: linear
        parameters: {weight: high}
        """)
    assert [text.split(" ")[0] for text in told] == ["r.yml:2:", "r.yml:4:", "r.yml:6:", "r.yml:8:"]


def test_models_of_another_depth_are_refused_with_the_way_out(faults, llamas, write_llama):
    write_llama("deep", 4, layers=3)
    told = faults("models: [{model: a}, {model: deep}]\nmerge_method: linear\nparameters: {weight: 1}\n")
    assert len(told) == 1
    assert "deep has 3 layers under model.layers, a has 2." in told[0]
    assert "`slices`" in told[0]


def test_shapes_that_differ_are_one_fault_a_pair(faults, llamas, write_llama):
    def wider(arrays):
        for name in list(arrays):
            arrays[name] = np.concatenate([arrays[name]] * 2)

    def longer(arrays):
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            arrays[name] = np.concatenate([arrays[name], arrays[name][:3]])

    write_llama("wide", 4, change=wider)
    write_llama("more", 5, change=longer)
    told = faults("models: [{model: a}, {model: wide}, {model: more}]\nmerge_method: linear\nparameters: {weight: 1}\n")
    assert len(told) == 2
    wide, more = sorted(told, key=lambda text: "in more" in text)
    assert "lm_head.weight is [16, 8] in a, [32, 8] in wide" in wide
    assert "(and 18 more tensors)" in wide
    assert "Models of different width cannot be merged." in wide
    assert "[19, 8] in more" in more
    assert "`tokenizer_source: union`" in more
    assert "`tensors:` rule" in more


def test_layers_of_another_width_cannot_be_stacked(faults, llamas, write_llama):
    def narrow(arrays):
        for name in list(arrays):
            arrays[name] = arrays[name][..., :4].copy()

    write_llama("narrow", 4, change=narrow)
    told = faults("""\
        slices:
        - sources: [{model: a, layer_range: [0, 2]}]
        - sources: [{model: narrow, layer_range: [0, 2]}]
        merge_method: passthrough
        """)
    assert len(told) == 1
    assert "is [8] in a, [4] in narrow" in told[0]


def test_layers_of_different_kinds_are_refused(faults, write_model):
    def layer(i, kind):
        return {
            f"m.layers.{i}.{kind}.weight": np.ones(2, np.float32),
            f"m.layers.{i}.norm.weight": np.ones(2, np.float32),
        }

    config = {"num_hidden_layers": 2}
    write_model("x", layer(0, "attn") | layer(1, "mamba"), config)
    write_model("y", layer(0, "attn") | layer(1, "mamba"), config)
    told = faults("""\
        slices:
        - sources:
          - {model: x, layer_range: [0, 1]}
          - {model: y, layer_range: [1, 2]}
        merge_method: linear
        parameters: {weight: 1}
        """)
    assert told == [
        "r.yml:2: layer 0 of x and layer 1 of y are of different kinds: the first has attn, the second mamba."
    ]


def test_a_model_without_anything_in_common_is_refused(faults, llamas, write_model):
    write_model("other", {"something.weight": np.ones((3, 3), np.float32)})
    told = faults("models: [{model: a}, {model: other}]\nmerge_method: linear\nparameters: {weight: 1}\n")
    assert len(told) == 1
    assert "other would be ignored: none of its tensors is merged with a's." in told[0]
    assert "it has something.weight" in told[0]


def test_a_quantised_model_is_named(faults, llamas, tmp_path):
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    (tmp_path / "b" / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    told = faults("models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 1}\n")
    assert len(told) == 1
    assert told[0].startswith("r.yml:1: b is quantised (fp8")


def test_numbers_and_codes_are_not_mixed(faults, llamas, write_llama):
    def coded(arrays):
        arrays["model.norm.weight"] = arrays["model.norm.weight"].astype(np.int8)

    write_llama("coded", 4, change=coded)
    told = faults("models: [{model: a}, {model: coded}]\nmerge_method: linear\nparameters: {weight: 1}\n")
    assert told == ["r.yml:1: model.norm.weight is float32 and, in coded, int8; these cannot be merged."]


def test_strict_refuses_what_only_some_have(faults, llamas, write_llama):
    write_llama("more", 4, change=lambda arrays: arrays.update({"mtp.weight": np.ones(2, np.float32)}))
    text = "models: [{model: %s}, {model: %s}]\nmerge_method: linear\nparameters: {weight: 1}\nstrict: true\n"
    assert "strict: 1 tensor copied, not merged (not in a): mtp.weight." in faults(text % ("more", "a"))[0]
    assert "strict: 1 tensor copied, not merged (not in a): mtp.weight." in faults(text % ("a", "more"))[0]
    assert faults(text % ("a", "b")) == []
