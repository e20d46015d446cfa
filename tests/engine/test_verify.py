"""After writing: what is on the disk is what was computed, and fits its own config."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import plait
from plait.engine import model_class, verify
from plait.planning.types import Plan


@pytest.fixture
def linear(models, recipe, small):
    models("BF16")
    return recipe("linear")


def tamper(change):
    """Change the file of weights just before it is verified."""

    def listen(event) -> None:
        if event.kind == "verify":
            file = Path(event.text).with_name("out.partial") / "model.safetensors"
            raw = bytearray(file.read_bytes())
            change(raw)
            file.write_bytes(raw)

    return listen


def _flip_first(raw: bytearray) -> None:
    raw[8 + int.from_bytes(raw[:8], "little")] ^= 1


def _flip_last(raw: bytearray) -> None:
    raw[-1] ^= 1


@pytest.mark.parametrize("change", [_flip_first, _flip_last])
def test_changed_bytes_are_noticed(change, linear, tmp_path):
    with pytest.raises(plait.MergeError, match=r"is not on the disk as it was written\. It is left in .*out.partial"):
        plait.merge(linear, tmp_path / "out", on_event=tamper(change))
    assert not (tmp_path / "out").exists()
    plait.merge(linear, tmp_path / "out")
    plait.merge(linear, tmp_path / "good")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        tmp_path / "good" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(("parts", "every"), [(0.5, 1), (3.01, 3), (10**5, 10**5)])
def test_of_a_large_output_some_units_are_read_again(parts, every, linear, tmp_path, monkeypatch):
    read: list[int] = []
    digest = verify.digest_of_unit
    monkeypatch.setattr(verify, "digest_of_unit", lambda *args: read.append(1) or digest(*args))
    size = sum(step.size * 2 for step in plait.plan(linear).steps)
    monkeypatch.setattr(verify, "_READ_AGAIN", max(1, int(size / parts)))
    plait.merge(linear, tmp_path / "out")
    units = sum(verify.units_of(step) for step in plait.plan(linear).steps)
    assert units > 3
    assert len(read) == -(-units // every)


def _rename(raw: bytearray) -> None:
    at = raw.index(b"lm_head.weight")
    raw[at : at + 7] = b"lm_tail"


def _retype(raw: bytearray) -> None:
    for at in (raw.index(b'"BF16"'), raw.index(b'"BF16"') + 6):
        raw[at : at + 6] = b'"I16" ' if raw[at : at + 6] == b'"BF16"' else raw[at : at + 6]


@pytest.mark.parametrize("change", [_rename, _retype])
def test_a_changed_header_is_noticed(change, linear, tmp_path):
    with pytest.raises(plait.MergeError, match=r"The output differs from the plan in \d tensors, such as .*left in"):
        plait.merge(linear, tmp_path / "out", on_event=tamper(change))


def test_an_output_that_cannot_be_read_is_noticed(linear, tmp_path):
    with pytest.raises(plait.MergeError, match=r"The output cannot be opened: .*left in"):
        plait.merge(linear, tmp_path / "out", on_event=tamper(lambda raw: raw.extend(b"more")))


def test_it_can_be_left_out(linear, tmp_path):
    kinds: list[str] = []
    plait.merge(linear, tmp_path / "out", verify=False, on_event=lambda event: kinds.append(event.kind))
    assert "verify" not in kinds


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 16,
    "max_position_embeddings": 32,
    "tie_word_embeddings": False,
}


@pytest.fixture
def llamas(write_llama, recipe, tmp_path, monkeypatch):
    """Two Llamas and a recipe of their average; the donor's config is edited."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)

    def made(change=lambda _: None, arrays=None):
        for seed, name in enumerate("ab"):
            folder = write_llama(name, seed, change=arrays)
            config = dict(LLAMA)
            change(config)
            (folder / "config.json").write_text(json.dumps(config))
        return recipe("linear")

    return made


def test_a_config_that_fits(llamas, tmp_path):
    assert plait.merge(llamas(), tmp_path / "out").warnings == ()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "hidden_size",
            16,
            r"21 tensors have another shape, such as lm_head.weight: \[16, 8\], LlamaForCausalLM expects \[16, 16\]",
        ),
        ("num_hidden_layers", 3, r"LlamaForCausalLM expects 9 tensors that are not there, such as model.layers.2."),
        ("intermediate_size", 24, r"6 tensors have another shape, such as model.layers.0.mlp.down_proj"),
    ],
)
def test_a_config_that_does_not_fit(key, value, message, llamas, tmp_path):
    path = llamas()
    planned = plait.plan(path)
    odd = Plan(**{**{f: getattr(planned, f) for f in planned.__dataclass_fields__}, "config": {**LLAMA, key: value}})
    with pytest.raises(
        plait.MergeError, match=rf"does not fit its own config: .*{message}.*It is left in .*out.partial"
    ):
        plait.merge(path, tmp_path / "out", planned=odd)
    assert not (tmp_path / "out").exists()


def _without_head(arrays) -> None:
    del arrays["lm_head.weight"]


def test_a_head_that_is_tied_may_be_missing(llamas, tmp_path):
    path = llamas(lambda config: config.update(tie_word_embeddings=True), _without_head)
    assert plait.merge(path, tmp_path / "out").warnings == ()


def test_a_head_that_the_plan_lost_is_noticed(llamas, tmp_path):
    text = llamas().read_text() + "tensors: [{match: lm_head.weight, drop: true}]\n"
    (tmp_path / "drop.yml").write_text(text)
    with pytest.raises(plait.MergeError, match=r"expects 1 tensors that are not there, such as lm_head.weight"):
        plait.merge(tmp_path / "drop.yml", tmp_path / "out")


def _exotic(**settings):
    return lambda config: config.update(settings)


@pytest.mark.parametrize(
    ("change", "warns"),
    [
        (_exotic(num_attention_heads=3), True),  # 8 is not a multiple of 3
        (_exotic(model_type="from_next_year"), True),
        (_exotic(model_type="from_next_year", auto_map={"AutoConfig": "configuration.Next"}), True),
        (_exotic(hidden_act="none of that name"), True),
        (_exotic(architectures=["FromNextYear"]), False),
        (_exotic(architectures=None), False),
        (_exotic(architectures="LlamaForCausalLM"), False),
        (lambda config: config.pop("model_type"), False),
    ],
)
def test_configs_of_other_kinds_do_not_break_a_good_merge(change, warns, llamas, tmp_path, capfd):
    result = plait.merge(llamas(change), tmp_path / "out")
    told = [text for text in result.warnings if "cannot be built from config.json" in text]
    assert bool(told) == warns
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [ImportError("broken"), RuntimeError("worse"), OSError("libtorch.so")])
def test_a_broken_installation_does_not_break_a_good_merge(error, linear, tmp_path, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(model_class, "_expected", fail)
    result = plait.merge(linear, tmp_path / "out")
    assert [str(error) in text for text in result.warnings] == [True]


@pytest.mark.parametrize(
    ("expected", "missing"),
    [
        ({"same": {"a.w": frozenset({"b.w"})}}, False),  # the class has one tensor under both names
        ({"optional": frozenset({"a.w"})}, False),  # the class ties it
        ({"shapes": {"b.w": (2,), "c.w": (2,)}}, False),  # no input ever had such a tensor
        ({}, True),
    ],
)
def test_only_what_was_lost_is_missing(expected, missing):
    built = {"shapes": {"a.w": (2,), "b.w": (2,)}, "same": {}, "optional": frozenset()} | expected
    step = SimpleNamespace(name="b.w", shape=(2,), inputs=())
    plan = SimpleNamespace(steps=(step,), stage_steps=(), tied={}, dropped=(SimpleNamespace(name="a.w"),))
    told = model_class._faults(model_class._Expected(**built), "X", plan)
    assert told == (["X expects 1 tensors that are not there, such as a.w"] if missing else [])
