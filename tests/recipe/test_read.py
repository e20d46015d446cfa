from __future__ import annotations

import contextlib
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import RecipeError, Where
from plait.recipe import filters_in, levels_of, load_recipe, model_mentions, parameter_mentions, parse_recipe
from plait.recipe.types import Filtered, ModelRef, ModelToken


def test_two_slices_stacked(parse):
    (recipe,) = parse("""\
        slices:
          - sources:
              - model: lab/tall-7b
                layer_range: [0, 20]
          - sources:
              - model: lab/wide-7b
                layer_range: [12, 32]
        merge_method: passthrough
        dtype: float16
        """)
    (module,) = recipe.modules
    assert (module.name, module.whole, module.where.line) == ("", False, 1)
    assert [(str(s.model), s.layer_range) for p in module.slices for s in p.sources] == [
        ("lab/tall-7b", (0, 20)),
        ("lab/wide-7b", (12, 32)),
    ]
    assert (recipe.merge_method, recipe.merge_method_where.line, recipe.dtype) == ("passthrough", 8, "float16")
    assert recipe.warnings == ()


def test_gradients_with_filters_and_a_fallback(parse):
    (recipe,) = parse("""\
        slices:
          - sources:
              - {model: lab/one, layer_range: [0, 32]}
              - {model: lab/two, layer_range: [0, 32]}
        merge_method: slerp
        base_model: lab/one
        parameters:
          t:
            - filter: attn
              value: [0, 0.4, 1]
            - filter: mlp
              value: [1, .5, 0]
            - value: 0.5
        dtype: torch.bfloat16
        """)
    assert recipe.dtype == "bfloat16"
    assert recipe.parameters["t"].value == (
        Filtered("attn", (0, 0.4, 1), Where("r.yml", 9)),
        Filtered("mlp", (1, 0.5, 0), Where("r.yml", 11)),
        Filtered(None, 0.5, Where("r.yml", 13)),
    )
    assert [entry.filter for entry in filters_in(recipe)] == ["attn", "mlp", None]


def test_models_with_weights(parse):
    (recipe,) = parse("""\
        models:
          - model: lab/one
            parameters:
              weight: 1.0
          - model: lab/two
            parameters: {weight: 0.25}
        merge_method: linear
        """)
    (module,) = recipe.modules
    (part,) = module.slices
    assert module.whole
    assert [source.layer_range for source in part.sources] == [None, None]
    assert [source.parameters["weight"].value for source in part.sources] == [1.0, 0.25]


def test_models_without_parameters_and_gradients_per_model(parse):
    (recipe,) = parse("""\
        models:
          - model: lab/base
          - model: lab/chat
            parameters:
              density: [1, 0.7, 0.1]
              weight: 1.0
          - model: lab/code
            parameters:
              density: 0.33
              weight:
                - filter: mlp
                  value: 0.5
                - value: 0
        merge_method: ties
        base_model: lab/base
        parameters: {normalize: true, int8_mask: yes}
        dtype: float16
        """)
    assert recipe.modules[0].slices[0].sources[0].parameters == {}
    assert recipe.parameters["int8_mask"].value is True
    assert [(name, level) for name, _, level in parameter_mentions(recipe)] == [
        ("normalize", "recipe"),
        ("int8_mask", "recipe"),
        ("density", "model 'lab/chat'"),
        ("weight", "model 'lab/chat'"),
        ("density", "model 'lab/code'"),
        ("weight", "model 'lab/code'"),
    ]


def test_modules(parse):
    (recipe,) = parse("""\
        modules:
          text:
            slices:
              - sources: [{model: a/a, layer_range: [0, 4], parameters: {weight: 2}}]
                base_model: a/base
                parameters: {weight: 3}
            parameters: {weight: 4}
          vision: {models: [{model: a/a}, {model: a/b}]}
        parameters: {weight: 5}
        merge_method: linear
        """)
    text, vision = recipe.modules
    assert (text.name, text.whole, vision.name, vision.whole) == ("text", False, "vision", True)
    part = text.slices[0]
    assert part.base_model == ModelRef("a/base")
    labelled = [(label, s["weight"].value) for label, s in levels_of(recipe, text, part, part.sources[0])]
    assert labelled == [
        ("module 'text', slice 1, source 'a/a'", 2),
        ("module 'text', slice 1", 3),
        ("module 'text'", 4),
        ("recipe", 5),
    ]
    assert [label for label, _ in levels_of(recipe, text, part)] == [label for label, _ in labelled[1:]]


def test_tensor_rules_post_steps_seed_and_strict(parse):
    (recipe,) = parse("""\
        models: [{model: a/a}]
        merge_method: linear
        tensors:
          - {match: "*.norm.weight", merge_method: linear, parameters: {weight: [0, 1]}}
          - {match: "lm_head.*", copy_from: a/c@v1}
          - {match: "mtp.*", drop: true}
        post:
          - restore_norm
          - scale: [0.5, 1]
          - clamp: {value: 3, mode: hard}
          - rescale:
              - {filter: mlp, value: 2}
              - {value: 1}
        seed: 7
        strict: true
        """)
    merge, copy, drop = recipe.tensors
    assert (merge.merge_method, merge.parameters["weight"].value, merge.drop) == ("linear", (0, 1), False)
    assert copy.copy_from == ModelRef("a/c", "v1")
    assert (drop.match, drop.drop) == ("mtp.*", True)
    assert [step.name for step in recipe.post] == ["restore_norm", "scale", "clamp", "rescale"]
    assert recipe.post[0].parameters == {}
    assert recipe.post[1].parameters["value"].value == (0.5, 1)
    assert {name: s.value for name, s in recipe.post[2].parameters.items()} == {"value": 3, "mode": "hard"}
    assert [entry.filter for entry in filters_in(recipe)] == ["mlp", None]
    assert (recipe.seed, recipe.strict) == (7, True)
    mentioned = [(name, level) for name, _, level in parameter_mentions(recipe)]
    assert ("weight", "tensors '*.norm.weight'") in mentioned
    assert ("mode", "post 'clamp'") in mentioned
    levels = levels_of(recipe, recipe.modules[0], recipe.modules[0].slices[0], rules=recipe.tensors)
    assert [label for label, _ in levels] == ["tensors '*.norm.weight'"]
    assert [str(model) for model in model_mentions(recipe)] == ["a/a", "a/c@v1"]


def test_tokenizer(parse):
    (recipe,) = parse("""\
        models: [{model: a/a}]
        merge_method: linear
        tokenizer:
          source: base
          tokens:
            <|start|>: {source: {kind: model_token, model: a/b, token: "<s>"}, force: true}
            <|end|>: {source: {kind: model_token, model: a/b, token_id: 0}}
            <pad>: {source: {kind: zero}}
            <x>: {source: a/c}
            <y>: {source: {model: {path: a/d}}}
            <z>: {force: true}
          pad_to_multiple_of: 64
        chat_template: chatml
        """)
    spec = recipe.tokenizer
    assert (spec.source, spec.pad_to_multiple_of, recipe.chat_template) == ("base", 64, "chatml")
    assert {token: (rule.source, rule.force) for token, rule in spec.tokens.items()} == {
        "<|start|>": (ModelToken(ModelRef("a/b"), "<s>"), True),
        "<|end|>": (ModelToken(ModelRef("a/b"), token_id=0), False),
        "<pad>": ("zero", False),
        "<x>": (ModelRef("a/c"), False),
        "<y>": (ModelRef("a/d"), False),
        "<z>": (None, True),
    }
    assert spec.tokens["<pad>"].where.line == 8
    assert [model.path for model in model_mentions(recipe)] == ["a/a", "a/b", "a/b", "a/c", "a/d"]


@pytest.mark.parametrize(("written", "source"), [("union", "union"), ("base", "base"), ("a/b@v", ModelRef("a/b", "v"))])
def test_tokenizer_source(parse, written, source):
    (recipe,) = parse(f"models: [{{model: a/a}}]\nmerge_method: linear\ntokenizer_source: {written}\n")
    assert recipe.tokenizer.source == source


def test_a_tokenizer_without_source_is_a_union(parse):
    (recipe,) = parse("models: [{model: a/a}]\nmerge_method: linear\ntokenizer: {pad_to_multiple_of: 8}\n")
    assert recipe.tokenizer.source == "union"


def test_null_counts_as_absent(parse):
    (recipe,) = parse("""\
        models: [{model: a/a, parameters: }]
        slices:
        merge_method: linear
        base_model: null
        dtype: ~
        tokenizer:
        chat_template:
        seed:
        """)
    assert (recipe.base_model, recipe.dtype, recipe.tokenizer, recipe.seed) == (None, None, None, None)


def test_odd_but_no_fault(parse):
    (recipe,) = parse("""\
        slices:
          - sources:
              - model: {model: a/a, override_architecture: LlamaForCausalLM}
                layer_range: [0, 2]
            residual_weight: 0.5
        merge_method: passthrough
        parameters:
          scale: [{value: 1}, {filter: mlp, value: 2}]
        """)
    assert [str(warning) for warning in recipe.warnings] == [
        "r.yml:5: 'residual_weight' has no effect, neither in mergekit nor in plait. Leave it out.",
        "r.yml:3: 'override_architecture' has no effect: plait reads the structure off the checkpoint.",
        "r.yml:8: This entry matches every tensor, so those after it never apply. Put it last.",
    ]


WRITTEN = [
    ("1", 1), ("-2", -2), ("1_000", 1000), ("0.5", 0.5), (".5", 0.5), ("-.5", -0.5), ("1.", 1.0), ("1e-3", 1e-3),
    ("1E3", 1000.0), ("-2.5e2", -250.0), ("1.5e-05", 1.5e-5), ("+.5e1", 5.0), (".inf", math.inf), ("-.inf", -math.inf),
    ("inf", math.inf), ("1e999", math.inf), ("08", 8.0), ("1_e3", 1000.0), ("true", True), ("no", False), ("max", "max"), ("'1e-3'", "1e-3"),
    ('"0.5"', "0.5"), ("2024-01-02", "2024-01-02"), ("info", "info"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "value"), WRITTEN)
def test_scalars(parse, written, value):
    (recipe,) = parse(f"models: [{{model: a/a}}]\nmerge_method: linear\nparameters: {{p: {written}}}\n")
    got = recipe.parameters["p"].value
    assert got == value
    assert type(got) is type(value)


@given(st.floats(allow_nan=False) | st.integers(-(2**63), 2**63))
def test_every_number_that_python_prints_is_read_back(value):
    (recipe,) = parse_recipe(f"models: [{{model: a/a}}]\nmerge_method: linear\nparameters:\n  p: {value!r}\n")
    assert recipe.parameters["p"].value == value


def test_anchors_and_merge_keys(parse):
    (recipe,) = parse("""\
        models:
          - model: a/a
            parameters: &p {weight: 1, density: 0.5}
          - model: a/b
            parameters: {weight: 2, <<: *p}
          - model: a/c
            parameters:
              <<: [{density: 0.1}, *p]
        merge_method: ties
        """)
    sources = recipe.modules[0].slices[0].sources
    assert [{n: s.value for n, s in source.parameters.items()} for source in sources] == [
        {"weight": 1, "density": 0.5},
        {"weight": 2, "density": 0.5},
        {"weight": 1, "density": 0.1},
    ]


def test_load_recipe_keeps_text_and_file(tmp_path):
    path = tmp_path / "merge.yml"
    text = "# über\nmodels: [{model: a/a}]\nmerge_method: linear\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    (recipe,) = load_recipe(path)
    assert (recipe.text, recipe.file, recipe.where) == (text, str(path), Where(str(path), 2))


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"models: \n  \xff\n", ":2: The file is not UTF-8 text."), (None, "Cannot read the recipe")],
)
def test_a_file_that_cannot_be_read(tmp_path, content, told):
    path = tmp_path / "merge.yml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=told):
        load_recipe(path)


@given(st.text(alphabet="ab:-[]{}&*<>!|#'\"\n\t ,0123_.e~?@+\u0000\ufeff", max_size=60))
def test_no_text_breaks_the_parser(text):
    with contextlib.suppress(RecipeError):
        assert parse_recipe(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["union", "a/b", "zero", "", "1e5"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["model", "models", "sources", "layer_range", "parameters", "filter", "value", "kind", "path"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
KEYS = ["name", "models", "slices", "modules", "merge_method", "base_model", "parameters", "dtype", "tokenizer",
        "tokenizer_source", "chat_template", "tensors", "post", "seed", "strict", "wrong"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_no_values_break_the_parser(document):
    with contextlib.suppress(RecipeError):
        (recipe,) = parse_recipe(yaml.safe_dump(document))
        assert recipe.merge_method
        assert all(part.sources for module in recipe.modules for part in module.slices)
