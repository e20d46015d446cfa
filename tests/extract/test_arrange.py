"""What peft can hold where."""

from __future__ import annotations

import pytest

from plait.adapters.arrange import arrange, transposed
from plait.adapters.choose import Choice, Pair
from plait.checkpoint import StoredTensor
from plait.errors import PlaitError


def _pair(name, *shape):
    tensor = StoredTensor(name, "F32", shape, "", 0)
    return Pair(name, tensor, tensor)


def _choice(linear, whole, left_out=()):
    return Choice(
        tuple(_pair(name, 4, 6) for name in linear),
        tuple(_pair(name, 4) for name in whole),
        dict.fromkeys(left_out, "so"),
        None,
    )


def test_peft_finds_modules_by_the_end_of_their_names():
    choice = _choice(["0.q.weight"], ["norm.weight", "0.prenorm.weight", "0.other.weight"])
    made = arrange(choice, {"norm.weight"})
    assert made.modules == ("0.prenorm", "norm")
    assert [pair.name for pair in made.whole] == ["norm.weight", "0.prenorm.weight"]
    assert [pair.name for pair in made.linear] == ["0.q.weight"]


def test_a_parameter_takes_its_whole_module_along():
    choice = _choice(
        ["0.mixer.in.weight", "1.mixer.in.weight"], ["0.mixer.A_log", "0.mixer.norm.weight", "1.mixer.A_log"]
    )
    made = arrange(choice, {"0.mixer.A_log", "0.mixer.norm.weight"})
    assert made.modules == ("0.mixer",)
    assert {pair.name for pair in made.whole} == {"0.mixer.in.weight", "0.mixer.A_log", "0.mixer.norm.weight"}
    assert [pair.name for pair in made.linear] == ["1.mixer.in.weight"]


def test_biases_of_linear_layers_go_beside_the_factors():
    made = arrange(_choice(["0.q.weight"], ["0.q.bias", "0.norm.bias", "0.norm.weight"]), {"0.q.bias", "0.norm.bias"})
    assert [pair.name for pair in made.biases] == ["0.q.bias"]
    assert made.modules == ("0.norm",)
    assert {pair.name for pair in made.whole} == {"0.norm.weight", "0.norm.bias"}


def test_what_no_module_can_hold_is_refused():
    with pytest.raises(PlaitError, match="cls_token"):
        arrange(_choice(["0.q.weight"], ["cls_token"]), {"cls_token"})
    with pytest.raises(PlaitError, match=r"mixer has to be saved whole.*mixer\.in\.weight"):
        arrange(_choice([], ["0.mixer.A_log"], ["0.mixer.in.weight"]), {"0.mixer.A_log"})


def test_layout_is_told_by_biases():
    linear = [_pair("0.attn.c_proj.weight", 8, 8), _pair("0.mlp.c_proj.weight", 32, 8), _pair("lm_head.weight", 50, 8)]
    shapes = {"0.attn.c_proj.bias": (8,), "0.mlp.c_proj.bias": (8,)}
    assert transposed(linear, shapes) == {"0.attn.c_proj.weight", "0.mlp.c_proj.weight"}
    assert transposed([_pair("a.weight", 32, 8), _pair("b.weight", 8, 8)], {"a.bias": (32,), "b.bias": (8,)}) == set()
