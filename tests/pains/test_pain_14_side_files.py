"""Pain 14: chat template, end of text, generation config and other small files: the output is ready for use."""

from __future__ import annotations

import json

import pytest

LINEAR = "models: [{model: a}, {model: b}]\nmerge_method: linear\nparameters: {weight: 0.5}\n"
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


@pytest.fixture
def pair(model, tokenizer, tmp_path):
    """Two models of different tokenizers, each with all the small files there are."""
    for seed, (name, size) in enumerate((("a", 60), ("b", 50))):
        made = tokenizer(name, name, size=size, added=("<|im_end|>",) if name == "b" else ())
        ids = made.get_vocab()
        ends = [ids["</s>"], ids["<|im_end|>"]] if name == "b" else [ids["</s>"]]
        model(name, seed=seed, vocab_size=len(ids), eos_token_id=ends[-1])
        files = {
            "generation_config.json": {"eos_token_id": ends, "pad_token_id": ids["<pad>"], "temperature": 0.6},
            "preprocessor_config.json": {"of": name},
            "processor_config.json": {"of": name},
            "chat_template.json": {"chat_template": TEMPLATE + name},
        }
        for file, data in files.items():
            (tmp_path / name / file).write_text(json.dumps(data))
        (tmp_path / name / "chat_template.jinja").write_text(TEMPLATE + name)


def test_all_small_files_come_from_the_donor(pair, cli, tmp_path):
    """unsloth#5410, unsloth#4671, mk#589: generation config, template (jinja and json), processors."""
    done = cli("merge", "out", says=LINEAR + "base_model: a\ntokenizer_source: base\n")
    assert done.code == 0, done.err
    names = ("generation_config.json", "preprocessor_config.json", "processor_config.json", "chat_template.json")
    for name in (*names, "chat_template.jinja", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "a" / name).read_bytes(), name
    plan = cli("plan", says=LINEAR + "base_model: a\ntokenizer_source: base\n").out
    assert "0  a  (config and tokenizer)" in plan
    assert "generation_config.json" in plan


def test_the_end_of_text_follows_its_token(pair, cli, config_of, vocabulary):
    """unsloth#5386: eos overwritten, "vLLM to never stop generating"; mergekit loses eos lists with union."""
    text = "models: [{model: b}, {model: a}]\nmerge_method: linear\nparameters: {weight: 0.5}\n"
    done = cli("merge", "out", says=text + "tokenizer: {source: union}\n")
    assert done.code == 0, done.err
    ids = vocabulary("out")
    said = config_of("out", "generation_config.json")
    assert said["eos_token_id"] == [ids["</s>"], ids["<|im_end|>"]]
    assert said["pad_token_id"] == ids["<pad>"]
    assert said["temperature"] == 0.6
    assert config_of("out")["eos_token_id"] == ids["<|im_end|>"]


def test_another_models_tokenizer_brings_its_template_and_numbers(pair, cli, config_of, vocabulary, tmp_path):
    done = cli("merge", "out", says=LINEAR + "base_model: b\ntokenizer_source: a\n")
    assert done.code == 0, done.err
    ids, theirs = vocabulary("out"), vocabulary("b")
    assert "<|im_end|>" in theirs.keys() - ids.keys()
    assert (tmp_path / "out/chat_template.jinja").read_text() == TEMPLATE + "a"
    assert config_of("out", "preprocessor_config.json") == {"of": "b"}
    numbers = config_of("out", "generation_config.json")["eos_token_id"]
    assert ids["</s>"] in (numbers if isinstance(numbers, list) else [numbers])
    assert all(
        number < config_of("out")["vocab_size"] for number in (numbers if isinstance(numbers, list) else [numbers])
    )


@pytest.mark.parametrize("asked", ["auto", "{{ messages[0].content }}"])
def test_a_template_that_is_asked_for_is_the_only_one(asked, pair, cli, config_of, tmp_path):
    done = cli("merge", "out", says=LINEAR + f"base_model: a\ntokenizer_source: union\nchat_template: '{asked}'\n")
    assert done.code == 0, done.err
    wanted = TEMPLATE + "a" if asked == "auto" else asked
    assert (tmp_path / "out/chat_template.jinja").read_text() == wanted
    assert config_of("out", "chat_template.json")["chat_template"] == wanted


def test_transformers_loads_the_tokenizer_and_the_generation_config(pair, cli, hf, tmp_path):
    assert cli("merge", "out", says=LINEAR + "base_model: b\ntokenizer_source: union\n").code == 0
    loaded = hf.transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert loaded("le chat<|im_end|>")["input_ids"][-1] == loaded.convert_tokens_to_ids("<|im_end|>")
    said = hf.transformers.GenerationConfig.from_pretrained(tmp_path / "out")
    assert loaded.convert_tokens_to_ids("<|im_end|>") in said.eos_token_id
    assert loaded.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "<user>xb"


TALK = [("system", "S"), ("user", "U"), ("assistant", "A"), ("user", "V")]
BELOW = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
RENDERED = {
    "chatml": (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
        "<|im_start|>user\nV<|im_end|>\n<|im_start|>assistant\n"
    ),
    "llama3": "<s>"
    + "".join(
        f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}{'<|eot_id|>' if text else ''}"
        for role, text in [*TALK, ("assistant", "")]
    ),
    "mistral": "<s>[INST] S\n\nU [/INST] A</s>[INST] V [/INST]",
    "alpaca": "S\n\n### Instruction:\nU\n\n### Response:\nA</s>\n\n### Instruction:\nV\n\n### Response:\n",
    "exaone": "[|system|]S[|endofturn|]\n[|user|]U\n[|assistant|]A[|endofturn|]\n[|user|]V\n[|assistant|]",
}
ALONE = {
    "chatml": "<|im_start|>user\nU<|im_end|>\n",
    "llama3": "<s><|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>",
    "mistral": "<s>[INST] U [/INST]",
    "alpaca": BELOW + "### Instruction:\nU\n\n",
    "exaone": "[|system|][|endofturn|]\n[|user|]U\n",
}


@pytest.mark.parametrize("name", RENDERED)
def test_a_template_by_name(name, model, tokenizer, cli, hf, tmp_path):
    """mergekit's five names; what transformers makes of a talk is what the format's makers say."""
    for seed, place in enumerate("ab"):
        model(place, seed=seed, vocab_size=len(tokenizer(place).get_vocab()))
    assert cli("merge", "out", says=LINEAR + f"tokenizer_source: base\nchat_template: {name}\n").code == 0
    loaded = hf.transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    talk = [{"role": role, "content": text} for role, text in TALK]
    assert loaded.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) == RENDERED[name]
    assert loaded.apply_chat_template([{"role": "user", "content": "U"}], tokenize=False) == ALONE[name]


def test_a_template_misspelt(pair, cli):
    done = cli("merge", "out", says=LINEAR + "tokenizer_source: union\nchat_template: chatlm\n")
    assert done.code == 2
    assert "Did you mean 'chatml'?" in done.err
