import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.checkpoint import natural_key
from plait.checkpoint.names import find_aliases, in_natural_order
from plait.checkpoint.types import StoredTensor


def stored(name, offset=0, shape=(2,)):
    return StoredTensor(name, "F32", shape, "/f", offset)


def test_layer_two_comes_before_layer_ten():
    names = ["h.10.w", "h.2.w", "h.2.b", "embed", "h.02.w", "h.1.experts.11.w", "h.1.experts.9.w"]
    expected = ["embed", "h.1.experts.9.w", "h.1.experts.11.w", "h.2.b", "h.02.w", "h.2.w", "h.10.w"]
    assert sorted(names, key=natural_key) == expected
    assert list(in_natural_order(map(stored, names))) == expected


@given(st.lists(st.text("ab.019٣²", max_size=30) | st.text(), max_size=6))
def test_any_names_have_an_order_that_does_not_depend_on_the_order_given(names):
    assert sorted(names, key=natural_key) == sorted([*names[1:], *names[:1]], key=natural_key)


def test_a_number_of_thousands_of_digits():
    assert natural_key("9" * 10_000) > natural_key("1")


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["lm_head.weight", "model.embed_tokens.weight"], "model.embed_tokens.weight"),
        (["lm_head.weight", "transformer.wte.weight"], "transformer.wte.weight"),
        (["embed_out.weight", "gpt_neox.embed_in.weight"], "gpt_neox.embed_in.weight"),
        (
            ["decoder.embed_tokens.weight", "encoder.embed_tokens.weight", "lm_head.weight", "shared.weight"],
            "shared.weight",
        ),
        (["cls.predictions.bias", "cls.predictions.decoder.bias"], "cls.predictions.bias"),
        (["b.weight", "a.weight"], "b.weight"),
    ],
)
def test_the_name_kept_is_not_the_heads(names, kept):
    aliases = find_aliases({name: stored(name) for name in names})
    assert aliases == {name: kept for name in names if name != kept}


def test_only_the_same_bytes_shape_and_place_are_aliases():
    tensors = [stored("a"), stored("b", offset=8), stored("c", shape=(1, 2)), stored("d", shape=(0,))]
    tensors += [stored("e", shape=(0,))]
    tensors += [StoredTensor("turned", "F32", (2,), "/f", 0, (3,)), StoredTensor("elsewhere", "F32", (2,), "/g", 0)]
    assert find_aliases({tensor.name: tensor for tensor in tensors}) == {}
