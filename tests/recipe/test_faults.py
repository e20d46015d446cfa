from __future__ import annotations

import pytest

from plait.errors import RecipeError
from plait.recipe import parse_recipe

HEAD = "merge_method: linear\n"
ONE = "models: [{model: a/a}]\nmerge_method: linear\n"
KEYS = (
    "It takes: name, models, slices, modules, merge_method, base_model, parameters, dtype, out_dtype, "
    "tokenizer_source, tokenizer, chat_template, tensors, post, seed, strict, experts, adapter."
)
FLOATS = "Choose from: float16, bfloat16, float32, float64, float8_e4m3fn, float8_e5m2."

MANY = """\
models:
  - model: a/a
    parameters: {weight: [], density: [0.5, true]}
  - model: a/a
    weight: 1
  - a/c
  - model: a+b+c
merge_methd: ties
paramters: {weight: 1}
dtype: int64
out_dtype: bf16
seed: -1
strict: maybe
seed: 4
1: x
parameters:
  t: .nan
  u: {filtr: mlp, value: 1}
  v: [{filter: 1, value: 2}, 3]
  w:
  x: [[1]]
tensors:
  - {match: "*.norm*", drop: true, copy_from: x/y}
  - {match: a}
  - drop: false
post: [a, {d: 1, e: 2}, 3]
tokenizer_source: union
tokenizer:
  source: base
  tokens:
    <s>: {source: {kind: zeros}}
    <t>: {source: {kind: model_token, model: a/a, token: x, token_id: 3}}
    <u>: {sorce: a/b}
  pad_to_multiple_of: 0
chat_template: [1]
"""

TOLD = f"""\
m.yml:3: The gradient of parameter 'weight' is empty. Write at least one value.
m.yml:3: The gradient of parameter 'density' mixes types: `[0.5, true]`. Write only numbers, only text, or only true and false.
m.yml:4: Model 'a/a' is already in 'models', on line 2. Keep one of the two, with the sum of their weights.
m.yml:5: An entry of 'models' has no key 'weight'. If it is a parameter, put it under 'parameters'. It takes: model, parameters.
m.yml:6: An entry of 'models' must be a mapping, not `a/c`. Write it as `- model: a/c`.
m.yml:7: 'model' cannot be read from 'a+b+c': it has more than one '+', and no part of it exists on disk. Write path[@revision][+adapter[@revision]], or the mapping {{model: {{path: ...}}, lora: {{path: ...}}}}.
m.yml:8: A recipe has no key 'merge_methd'. Did you mean 'merge_method'? {KEYS}
m.yml:9: A recipe has no key 'paramters'. Did you mean 'parameters'? {KEYS}
m.yml:10: 'dtype: int64' would destroy the weights: they are fractions, and int64 cannot hold these. {FLOATS}
m.yml:11: 'out_dtype' has no element type 'bf16'. Did you mean 'bfloat16'? {FLOATS}
m.yml:12: 'seed' must be a whole number from 0 up, not `-1`.
m.yml:13: 'strict' must be true or false, not `maybe`.
m.yml:14: Duplicate key 'seed', first on line 12. Keep one of them.
m.yml:15: A key must be text, not `1`. Put it in quotes.
m.yml:17: Parameter 't' is not a number: `.nan`.
m.yml:18: An entry of parameter 'u' has no key 'filtr'. Did you mean 'filter'? It takes: filter, component, value.
m.yml:19: The filter of parameter 'v' must be text, not `1`. Put it in quotes.
m.yml:19: An entry of parameter 'v' must be a mapping, not `3`. Write the value for all other tensors as {{value: ...}}, last.
m.yml:20: Parameter 'w' has no value. Give it one, or leave it out.
m.yml:21: Parameter 'x' must be a number, text, true or false, a gradient (a list of these), {{file: ...}} or a list of {{filter, value}}, not `[1]`.
m.yml:23: An entry of 'tensors' takes one of: 'merge_method' and/or 'parameters'; 'copy_from'; 'drop: true'; this one has 'copy_from' and 'drop'.
m.yml:24: An entry of 'tensors' needs one of: 'merge_method' and/or 'parameters'; 'copy_from'; 'drop: true'.
m.yml:25: An entry of 'tensors' needs 'match' (a glob), 'regex' or 'component', or several of these.
m.yml:25: 'drop' can only be true. Leave it out to keep the tensors.
m.yml:26: An entry of 'post' must be a step's name, or a mapping of one name, not `{{d: 1, e: 2}}`. Begin each step with its own '- '.
m.yml:26: An entry of 'post' must be a step's name, or a mapping of one name, not `3`.
m.yml:28: The document has 'tokenizer' and 'tokenizer_source' (line 27); it takes one of them. Write the source as 'source' in 'tokenizer'.
m.yml:31: There is no kind of token source `zeros`. Did you mean 'zero'? The kinds are: model_token, zero.
m.yml:32: A source of kind model_token takes exactly one of 'token' and 'token_id', not 2.
m.yml:33: The rule of token '<u>' has no key 'sorce'. Did you mean 'source'? It takes: source, force.
m.yml:34: 'pad_to_multiple_of' must be a whole number from 1 up, not `0`.
m.yml:35: 'chat_template' must be text, not `[1]`."""


def test_all_faults_are_told_at_once_in_the_order_of_the_file():
    with pytest.raises(RecipeError) as caught:
        parse_recipe(MANY, "m.yml")
    assert str(caught.value).splitlines() == TOLD.splitlines()
    assert caught.value.exit_code == 2


RANGE = "slices: [{{sources: [{{model: a/a, layer_range: {}}}]}}]\nmerge_method: passthrough\n"
TWO_INTS = "must be two whole numbers, the first layer and the one after the last, as [0, 16], not"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "r.yml:1: The recipe is empty."),
        ("# only a comment\n", "r.yml:1: The recipe is empty."),
        ("- a\n", "r.yml:1: A recipe must be a mapping, not `- a`."),
        (HEAD, "r.yml:1: A recipe needs exactly one of 'models', 'slices', 'modules'."),
        ("models: [{model: a/a}]", "r.yml:1: A recipe needs 'merge_method'."),
        (HEAD + "models: []", "r.yml:2: 'models' is empty."),
        (HEAD + "models: 3", "r.yml:2: 'models' must be a list, not `3`."),
        (HEAD + "models: [{parameters: {}}]", "r.yml:2: An entry of 'models' needs 'model'."),
        (HEAD + "models: [{model: 7}]", "r.yml:2: 'model' must be text, not `7`. Put it in quotes."),
        (HEAD + "models: [{model: ''}]", "r.yml:2: 'model' must be text, not `''`."),
        (HEAD + "slices: [{sources: []}]", "r.yml:2: 'sources' is empty."),
        (HEAD + "slices: [{}]", "r.yml:2: An entry of 'slices' needs 'sources'."),
        (
            HEAD + "slices: [{sources: [{model: a/a}]}]",
            "r.yml:2: An entry of 'sources' needs 'layer_range'.",
        ),
        (HEAD + "modules: {}", "r.yml:2: 'modules' must be a mapping from names to modules, with at least one."),
        (HEAD + "modules: {v: {}}", "r.yml:2: Module 'v' needs exactly one of 'models', 'slices'."),
        (
            ONE + "slices: [{sources: [{model: a/a, layer_range: [0, 1]}]}]",
            "r.yml:3: A recipe takes exactly one of 'models', 'slices', 'modules', but has 'models' and 'slices'.",
        ),
        (RANGE.format("[0]"), f"r.yml:1: 'layer_range' {TWO_INTS} `[0]`."),
        (RANGE.format("[0, 1, 2]"), f"r.yml:1: 'layer_range' {TWO_INTS} `[0, 1, 2]`."),
        (RANGE.format("[0, 1.5]"), f"r.yml:1: 'layer_range' {TWO_INTS} `[0, 1.5]`."),
        (RANGE.format("[false, true]"), f"r.yml:1: 'layer_range' {TWO_INTS} `[false, true]`."),
        (RANGE.format("0-4"), f"r.yml:1: 'layer_range' {TWO_INTS} `0-4`."),
        (RANGE.format("[-1, 4]"), "r.yml:1: 'layer_range' must not be negative: `[-1, 4]`. Layers are counted from 0."),
        (
            RANGE.format("[3, 3]"),
            "r.yml:1: 'layer_range' has no layers: `[3, 3]`. The end is not included: [3, 4] is layer 3 alone.",
        ),
        (ONE + "dtype: int8", f"r.yml:3: 'dtype: int8' would destroy the weights: they are fractions, and int8 cannot hold these. {FLOATS}"),
        (ONE + "dtype: flot32", f"r.yml:3: 'dtype' has no element type 'flot32'. Did you mean 'float32'? {FLOATS}"),
        (ONE + "dtype: 16", "r.yml:3: 'dtype' must be text, not `16`. Put it in quotes."),
        (ONE + "seed: true", "r.yml:3: 'seed' must be a whole number from 0 up, not `true`."),
        (ONE + "seed: 1.0", "r.yml:3: 'seed' must be a whole number from 0 up, not `1.0`."),
        (ONE + "strict: 1", "r.yml:3: 'strict' must be true or false, not `1`."),
        (ONE + "parameters: [1]", "r.yml:3: 'parameters' must be a mapping from names to values, not `[1]`."),
        (ONE + "parameters: {p: !!int x}", "r.yml:3: `!!int x` cannot be read as int."),
        (ONE + "parameters: {p: !mine x}", "r.yml:3: Expected a single value, not `!mine x`."),
        (ONE + "parameters: {p: nan}", "r.yml:3: Parameter 'p' is not a number: `nan`."),
        (ONE + "parameters: {p: [0, .inf]}", "r.yml:3: The gradient of parameter 'p' must have finite numbers, not `[0, .inf]`."),
        (ONE + "parameters: {p: {filter: '', value: 1}}", "r.yml:3: The filter of parameter 'p' is empty. Leave it out to match every tensor."),
        (ONE + "parameters: {p: {filter: mlp}}", "r.yml:3: An entry of parameter 'p' needs 'value'."),
        (ONE + "parameters: {p: 99999999999999999999}", "r.yml:3: Parameter 'p' is too large: `99999999999999999999`."),
        (ONE + "tokenizer: union", "r.yml:3: 'tokenizer' must be a mapping, not `union`. For a source alone, write 'tokenizer_source'."),
        (ONE + "base_model: {path: x}", "r.yml:3: 'base_model' has no key 'path'. It takes: model, lora, override_architecture."),
        (ONE + "base_model: a@b@c", "r.yml:3: 'base_model' cannot be read from 'a@b@c': a path takes one '@', before its revision. Write path[@revision][+adapter[@revision]], or the mapping {model: {path: ...}, lora: {path: ...}}."),
        (ONE + "x: &a [*a]", "r.yml:1: An anchor of this document contains itself. Write that part out."),
        (ONE + "<<: 3", "r.yml:3: '<<' takes a mapping or a list of mappings, not `3`."),
        (ONE + "seed: [", "r.yml:3: This is not valid YAML: while parsing a flow node, expected the node content, but found '<stream end>'."),
        (ONE + "name: \x07", "r.yml:3: This is not valid YAML: special characters are not allowed."),
        (ONE + "x: " + "[" * 5000, "r.yml:1: The YAML is nested too deeply."),
        (ONE + "name: " + "[" * 70, None),
    ],
)  # fmt: skip
def test_single_faults(faults, text, told):
    found = faults(text)
    if told is not None:
        assert told in found
    assert all(len(fault) < 500 for fault in found)
    assert found


def test_a_cascade_is_not_told(faults):
    assert len(faults("modles: [{model: a/a}]\nmerge_method: linear\n")) == 1
    assert len(faults("models: [{model: a/a}]\nmerge_metod: linear\n")) == 1
    assert faults("models: [{modl: a/a}]\nmerge_method: linear\n") == [
        "r.yml:1: An entry of 'models' has no key 'modl'. Did you mean 'model'? It takes: model, parameters."
    ]


def test_sources_of_one_slice_must_be_equally_long(faults):
    assert faults("""\
        slices:
          - sources:
              - {model: a/a, layer_range: [0, 8]}
              - {model: a/b, layer_range: [0, 6]}
        merge_method: slerp
        """) == [
        "r.yml:2: The sources of a slice must have as many layers each, but have 8 and 6: a/a [0, 8], a/b [0, 6]. Make the ranges equally long."
    ]


UNEQUAL = """\
{}:
  - sources:
      - {{model: a/a, layer_range: [0, 8]}}
      - {{model: a/b, layer_range: [0, 8]}}
  - sources:
      - {{model: a/a, layer_range: [8, 12]}}
merge_method: linear
"""


def test_slices_must_have_the_same_number_of_sources(faults):
    assert faults(UNEQUAL.format("slices")) == [
        "r.yml:1: All slices must have the same number of sources, but they have 2 (line 2), 1 (line 5). Merge each part in a document of its own with a 'name', and stack these with 'passthrough'; or name every model in every slice, with weight 0 where it should not count."
    ]


def test_modules_may_differ_in_their_number_of_sources(faults):
    assert not faults("""\
        modules:
          a: {slices: [{sources: [{model: a/a, layer_range: [0, 8]}]}]}
          b: {models: [{model: a/a}, {model: a/b}]}
        merge_method: linear
        """)


def test_a_syntax_fault_does_not_hide_the_documents_before_it(faults):
    found = faults("models: [{model: a/a}]\nmerge_method: linear\nsed: 1\n---\nmodels: [\n")
    assert [fault.split(" ")[0] for fault in found] == ["r.yml:3:", "r.yml:6:"]


def test_an_empty_document_between_others(faults):
    assert faults("models: [{model: a/a}]\nmerge_method: linear\n---\n") == [
        "r.yml:4: This document is empty. Remove the '---' before it, or write a document."
    ]


def test_many_aliases_do_not_explode(faults):
    lines = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 60)]
    assert faults("\n".join(lines) + "\n<<: *a59\n")


def test_a_source_at_fault_is_not_counted(faults):
    assert faults("""\
        slices:
          - sources: [{model: a/a, layer_range: [0, 8]}, {modell: a/b, layer_range: [0, 8]}]
          - sources: [{model: a/a, layer_range: [8, 9]}, {model: a/b, layer_range: [8, 9]}]
        merge_method: linear
        """) == [
        "r.yml:2: An entry of 'sources' has no key 'modell'. Did you mean 'model'? It takes: model, layer_range, parameters."
    ]


def test_a_syntax_fault_stands_alone(faults):
    """Neither is the file empty, nor is it known which stages the unread part has."""
    assert len(faults("models: [\n")) == 1
    first = "name: front\nmodels: [{model: a/a}]\nmerge_method: linear\n"
    second = "models: [{model: frontal}]\nmerge_method: linear\n"
    assert len(faults(f"{first}---\n{second}---\nname: frontal\nmodels: [\n")) == 1
