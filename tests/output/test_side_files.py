"""Tokenizer files, chat templates, generation and processor configs of the output."""

from __future__ import annotations

import json

import pytest

import plait

LINEAR = "models: [{model: a}, {model: b}, {model: c}]\nmerge_method: linear\nparameters: {weight: 1}\n"
VOCAB = {f"t{i}": i for i in range(16)}


def tokenizer(vocab):
    return json.dumps({"model": {"type": "WordLevel", "vocab": vocab}, "added_tokens": []})


@pytest.fixture
def models(write_llama):
    folders = {name: write_llama(name, seed) for seed, name in enumerate("abc")}
    for name, folder in folders.items():
        (folder / "tokenizer.json").write_text(tokenizer(VOCAB) + " " * ord(name))
        (folder / "tokenizer_config.json").write_text(json.dumps({"of": name}))
        (folder / "generation_config.json").write_text(json.dumps({"of": name}))
        (folder / "preprocessor_config.json").write_text(json.dumps({"of": name}))
    return folders


def merged(recipe, text, tmp_path):
    return plait.merge(recipe(text), tmp_path / "out").path


def of(path):
    return json.loads(path.read_text())["of"]


def test_all_come_from_the_donor(recipe, models, tmp_path):
    (models["a"] / "chat_template.jinja").write_text("{{ a }}")
    (models["a"] / "chat_template.json").write_text('{"chat_template": "{{ a }}"}')
    out = merged(recipe, LINEAR, tmp_path)
    for name in ("tokenizer_config.json", "generation_config.json", "preprocessor_config.json"):
        assert of(out / name) == "a"
    for name in ("chat_template.jinja", "chat_template.json", "tokenizer.json"):
        assert (out / name).read_bytes() == (models["a"] / name).read_bytes()


@pytest.mark.parametrize("asked", ["tokenizer_source: c\n", "tokenizer: {source: c}\n"])
def test_the_tokenizer_comes_from_the_model_that_the_recipe_names(asked, recipe, models, tmp_path):
    (models["a"] / "chat_template.jinja").write_text("{{ a }}")
    (models["c"] / "chat_template.jinja").write_text("{{ c }}")
    (models["c"] / "processor_config.json").write_text("{}")
    out = merged(recipe, LINEAR + asked, tmp_path)
    assert not (out / "processor_config.json").exists()
    assert of(out / "tokenizer_config.json") == "c"
    assert (out / "chat_template.jinja").read_text() == "{{ c }}"
    assert (out / "tokenizer.json").read_bytes() == (models["c"] / "tokenizer.json").read_bytes()
    assert of(out / "generation_config.json") == of(out / "preprocessor_config.json") == "a"


def test_the_tokenizer_may_come_from_a_model_that_is_not_merged(recipe, models, write_llama, tmp_path):
    folder = write_llama("d", 7)
    (folder / "tokenizer.json").write_text(tokenizer(VOCAB))
    (folder / "tokenizer_config.json").write_text('{"of": "d"}')
    out = merged(recipe, LINEAR + "tokenizer_source: d\n", tmp_path)
    assert of(out / "tokenizer_config.json") == "d"
    (folder / "tokenizer.json").write_text(tokenizer({**VOCAB, "t0": 1, "t1": 0}))
    told = "tokenizer: that of d: 16 tokens, 16 rows; rows are aligned by token."
    assert told in plait.plan("r.yml").notes


@pytest.mark.parametrize("asked", ["tokenizer_source: union\n", "tokenizer_source: base\n", "tokenizer: {source: a}\n"])
def test_one_vocabulary_needs_no_aligning(asked, recipe, models):
    planned = plait.plan(recipe(LINEAR + asked))
    assert planned.warnings == ()
    assert all(source.tensor.derived is None for step in planned.steps for source in step.inputs)


def test_another_vocabulary_is_a_warning_where_no_alignment_is_asked_for(recipe, models):
    (models["c"] / "tokenizer.json").write_text(tokenizer({**VOCAB, "t0": 1, "t1": 0}))
    (warning,) = plait.plan(recipe(LINEAR)).warnings
    assert (
        "c and a have different vocabularies: 16 and 16 tokens; 0 only in the first, 0 only in the second, 2 with another"
        in str(warning)
    )


def test_rows_are_padded_where_they_are_no_multiple(recipe, models):
    text = LINEAR + "tokenizer: {source: a, pad_to_multiple_of: %d}\n"
    assert plait.plan(recipe(text % 8)).config["vocab_size"] == 16
    assert plait.plan(recipe(text % 5)).config["vocab_size"] == 20


def test_an_inline_template_replaces_every_other(recipe, models, tmp_path):
    (models["a"] / "tokenizer_config.json").write_text('{"of": "a", "chat_template": "{{ old }}"}')
    (models["a"] / "chat_template.json").write_text('{"chat_template": "{{ old }}"}')
    (models["a"] / "chat_template.jinja").write_text("{{ old }}")
    out = merged(recipe, LINEAR + 'chat_template: "{% if x %}{{ x }}{% endif %}"\n', tmp_path)
    assert (out / "chat_template.jinja").read_text() == "{% if x %}{{ x }}{% endif %}"
    for name in ("tokenizer_config.json", "chat_template.json"):
        assert json.loads((out / name).read_text())["chat_template"] == "{% if x %}{{ x }}{% endif %}"
    assert of(out / "tokenizer_config.json") == "a"


@pytest.mark.parametrize(
    ("templates", "chosen"),
    [
        (("x", "y", "y"), "y"),
        (("x", "y", "z"), "x"),
        ((None, "y", "z"), "y"),
        (("x", "x", "y"), "x"),
        ((None, None, None), None),
    ],
)
def test_auto_takes_the_plurality_and_the_earliest_of_equals(templates, chosen, recipe, models, tmp_path):
    for number, (folder, text) in enumerate(zip(models.values(), templates, strict=True)):
        if text is None:
            continue
        if number == 1:  # one model keeps it where older transformers do
            (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": f"{{{{ {text} }}}}"}))
        else:
            (folder / "chat_template.jinja").write_text(f"{{{{ {text} }}}}")
    out = merged(recipe, LINEAR + "chat_template: auto\n", tmp_path)
    found = out / "chat_template.jinja"
    assert (found.read_text() if found.exists() else None) == (chosen and f"{{{{ {chosen} }}}}")


def test_a_stale_output_never_shows_through(recipe, models, tmp_path):
    (models["a"] / "special_tokens_map.json").write_text("{}")
    out = merged(recipe, LINEAR, tmp_path)
    assert (out / "special_tokens_map.json").exists()
    (models["a"] / "special_tokens_map.json").unlink()
    plait.merge(recipe(LINEAR), out, overwrite=True)
    assert not (out / "special_tokens_map.json").exists()


def test_the_models_own_code_is_warned_of_and_left(recipe, models, tmp_path):
    config = json.loads((models["a"] / "config.json").read_text())
    (models["a"] / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling.Own"}}))
    (models["a"] / "modeling.py").write_text("raise SystemExit\n")
    plan = plait.plan(recipe(LINEAR))
    assert "a needs its own code (auto_map); its Python files are not copied." in str(plan.warnings[0])
    assert not (plait.merge("r.yml", tmp_path / "out").path / "modeling.py").exists()
