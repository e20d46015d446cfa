"""Which tensors a rule or an entry is for: globs, regular expressions, components."""

from __future__ import annotations

import pytest

from plait.errors import Where
from plait.recipe import evaluate, levels_of, resolve, rule_text, takes
from plait.recipe.types import COMPONENTS, Filtered, Setting, TensorRule

HERE = Where("r.yml", 1)
HEAD = "models: [{model: a/a}]\nmerge_method: linear\n"
WORDS = ", ".join(COMPONENTS)
NAME = "model.layers.11.self_attn.q_proj.weight"


def rule(match=None, **others):
    return TensorRule(match, HERE, **others)


@pytest.mark.parametrize(
    ("selectors", "taken"),
    [
        ({"match": "*.q_proj.*"}, True),
        ({"match": "q_proj"}, False),  # a glob is of the whole name
        ({"regex": r"q_proj"}, True),  # a regular expression is found anywhere
        ({"regex": r"^q_proj"}, False),
        ({"regex": r"layers\.1[01]\..*[qk]_proj\.weight$"}, True),
        ({"regex": r"layers\.1\."}, False),
        ({"component": "attention"}, True),
        ({"component": "mlp"}, False),
        ({"component": "attention", "regex": r"layers\.\d\."}, False),
        ({"component": "attention", "regex": r"layers\.\d\d\.", "match": "model.*"}, True),
        ({"component": "attention", "match": "*norm*"}, False),
    ],
)
def test_a_rule_takes_what_all_its_selectors_take(selectors, taken):
    assert takes(rule(**selectors), NAME, "attention") is taken


def test_rules_are_named_by_their_selectors(parse):
    (recipe,) = parse(HEAD + "tensors: [{regex: q, component: head, merge_method: linear, parameters: {weight: 1}}]")
    assert rule_text(recipe.tensors[0]) == "regex 'q' and component 'head'"
    module = recipe.modules[0]
    levels = levels_of(recipe, module, module.slices[0], rules=recipe.tensors)
    assert [label for label, _ in levels] == ["tensors regex 'q' and component 'head'"]


def test_an_entry_wants_filter_and_component(parse):
    (recipe,) = parse(
        HEAD
        + "parameters:\n  weight:\n    - {filter: q_proj, component: attention, value: [0, 1]}\n"
        + "    - {component: attention, value: 2}\n    - {component: norms, value: 3}\n    - {value: 4}\n"
    )
    setting = recipe.parameters["weight"]
    assert recipe.warnings == ()

    def value(name, component):
        return evaluate(setting, name, 0.5, component=component)[0]

    assert value("x.q_proj", "attention") == 0.5
    assert value("x.k_proj", "attention") == 2
    assert value("x.q_proj", "norms") == 3
    assert value("x.q_proj", "mlp") == 4


def test_entries_that_nothing_reaches_are_told_only_after_one_for_everything(parse):
    text = HEAD + "parameters: {weight: [{component: mlp, value: 1}, {value: 2}]}"
    assert parse(text)[0].warnings == ()
    assert len(parse(text.replace("component: mlp, ", ""))[0].warnings) == 1


@pytest.mark.parametrize(
    ("filter_", "note"),
    [(None, "component 'mlp', gradient [0, 1] at t=0.25"), ("up", "filter 'up', component 'mlp', gradient [0, 1] at t=0.25")],
)  # fmt: skip
def test_the_note_has_the_component(filter_, note):
    setting = Setting((Filtered(filter_, (0, 1), HERE, "mlp"),), HERE)
    found = resolve("p", "up", 0.25, [("recipe", {"p": setting})], component="mlp")
    assert (found.value, found.note) == (0.25, note)
    assert resolve("p", "up", 0.25, [("recipe", {"p": setting})], component="head") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tensors: [{drop: true}]", "r.yml:3: An entry of 'tensors' needs 'match' (a glob), 'regex' or 'component', or several of these."),
        ("tensors: [{mach: x, drop: true}]", "r.yml:3: An entry of 'tensors' has no key 'mach'. Did you mean 'match'? It takes: match, regex, component, merge_method, parameters, copy_from, drop."),
        ("tensors: [{component: attn, drop: true}]", f"r.yml:3: There is no component 'attn'. Did you mean 'attention'? They are: {WORDS}."),
        ("tensors: [{component: Norm, drop: true}]", f"r.yml:3: There is no component 'Norm'. Did you mean 'norms'? They are: {WORDS}."),
        ("tensors: [{component: 3, drop: true}]", "r.yml:3: 'component' must be text, not `3`. Put it in quotes."),
        ("tensors: [{regex: 'a(', drop: true}]", "r.yml:3: 'regex' is no regular expression: missing ), unterminated subpattern at position 1. It is written as for Python's re.search."),
        ("parameters: {p: {component: lm_head, value: 1}}", f"r.yml:3: There is no component 'lm_head'. Did you mean 'head'? They are: {WORDS}."),
        ("parameters: {p: {component: zzz, value: 1}}", f"r.yml:3: There is no component 'zzz'. They are: {WORDS}."),
    ],
)  # fmt: skip
def test_faults(faults, text, told):
    assert faults(HEAD + text) == [told]
