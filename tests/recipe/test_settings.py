from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import Where
from plait.recipe import Resolved, evaluate, matches, resolve
from plait.recipe.types import Filtered, Setting

HERE = Where("r.yml", 3)
numbers = st.floats(-1e300, 1e300) | st.integers(-(2**64), 2**64)
gradients = st.lists(numbers, min_size=1, max_size=9).map(tuple)
positions = st.floats(0, 1)


def value_at(value, t, name="x"):
    return evaluate(Setting(value, HERE), name, t)[0]


@given(st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), positions)
def test_a_scalar_is_itself_and_keeps_its_type(value, t):
    got, where = evaluate(Setting(value, HERE), "x", t)
    assert got == value
    assert type(got) is type(value)
    assert where is HERE


@given(gradients)
def test_a_gradient_begins_and_ends_exactly(values):
    assert value_at(values, 0) == float(values[0])
    assert value_at(values, 1) == float(values[-1])


@given(gradients, st.data())
def test_a_gradient_goes_through_its_points(values, data):
    i = data.draw(st.integers(0, len(values) - 1))
    t = i / max(len(values) - 1, 1)
    if t * (len(values) - 1) == i:
        assert value_at(values, t) == float(values[i])


@given(gradients, positions)
def test_a_gradient_stays_between_its_neighbours(values, t):
    low = int(t * (len(values) - 1))
    near = [float(v) for v in values[low : low + 2]]
    got = value_at(values, t)
    assert isinstance(got, float)
    assert min(near) <= got <= max(near)


@given(st.floats(-10, 10), st.floats(-10, 10), positions)
def test_two_values_make_a_line(a, b, t):
    assert math.isclose(value_at((a, b), t), a + (b - a) * t, rel_tol=1e-12, abs_tol=1e-12)


@pytest.mark.parametrize(("t", "expected"), [(0, 0.0), (0.25, 0.25), (0.5, 0.5), (0.625, 0.625), (0.75, 0.75)])
def test_golden_gradient(t, expected):
    assert value_at((0, 0.5, 1), t) == expected


def test_golden_uneven_gradient():
    # Four values, so segments of 1/3: t = 1/2 is half way from the second to the third.
    assert value_at((1, 2, 8, 0), 0.5) == 5.0
    assert value_at((1, 2, 8, 0), 5 / 6) == pytest.approx(4.0, rel=1e-14)


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7, 1 / 3])
def test_equal_values_give_that_value_without_rounding(value):
    assert {value_at((value, value), i / 997) for i in range(998)} == {value}


@given(st.lists(st.booleans(), min_size=1).map(tuple) | st.lists(st.text(), min_size=1).map(tuple), positions)
def test_text_and_flags_are_picked_not_mixed(values, t):
    assert value_at(values, t) is values[int(t * (len(values) - 1))]


def test_golden_picks():
    values = ("a", "b", "c")
    assert [value_at(values, t) for t in (0, 0.49, 0.5, 0.99, 1)] == ["a", "a", "b", "b", "c"]


@given(
    st.lists(st.tuples(st.none() | st.sampled_from(["*", "attn", "mlp", "norm", "q"]), gradients), max_size=6),
    st.sampled_from(["layers.0.attn.q.weight", "layers.0.mlp.up", "norm", "lm_head", ""]),
    positions,
)
def test_the_first_matching_filter_wins(entries, name, t):
    filtered = tuple(Filtered(f, value, Where("r.yml", 10 + i)) for i, (f, value) in enumerate(entries))
    if not filtered:
        return
    hit = next((e for e in filtered if e.filter in {None, "*"} or (name and e.filter in name)), None)
    got = evaluate(Setting(filtered, HERE), name, t)
    assert got == (None if hit is None else (value_at(hit.value, t), hit.where))


@pytest.mark.parametrize("t", [-1e-9, 1.0000001, math.nan, math.inf])
def test_t_outside_its_range_is_refused(t):
    with pytest.raises(ValueError, match=r"t must be in \[0, 1\]"):
        value_at((0, 1), t)


def test_matches():
    assert matches(None, "")
    assert matches("*", "a")
    assert matches("attn", "self_attn.q")
    assert not matches("attn", "mlp")
    assert not matches("attn", "")
    assert not matches("q*", "q_proj")  # a substring, no glob


FILTERED = Setting((Filtered("self_attn", (0, 0.5, 1), Where("r.yml", 5)), Filtered("mlp", 2, Where("r.yml", 6))), HERE)
LEVELS = [
    ("model 'a'", {"weight": FILTERED}),
    ("slice 1", {"density": Setting(0.25, Where("r.yml", 8))}),
    ("recipe", {"weight": Setting(9, Where("r.yml", 9)), "density": Setting(1.0, Where("r.yml", 10))}),
]


@pytest.mark.parametrize(
    ("name", "tensor", "expected"),
    [
        (
            "weight",
            "0.self_attn.q",
            Resolved(0.25, Where("r.yml", 5), "model 'a'", "filter 'self_attn', gradient [0, 0.5, 1] at t=0.25"),
        ),
        ("weight", "0.mlp.up", Resolved(2, Where("r.yml", 6), "model 'a'", "filter 'mlp'")),
        ("weight", "norm", Resolved(9, Where("r.yml", 9), "recipe", "")),
        ("density", "norm", Resolved(0.25, Where("r.yml", 8), "slice 1", "")),
        ("lambda", "norm", None),
    ],
)
def test_the_highest_level_that_gives_a_value_wins(name, tensor, expected):
    assert resolve(name, tensor, 0.25, LEVELS) == expected


@pytest.mark.parametrize(
    ("value", "note"),
    [
        ((Filtered(None, 1, HERE),), "no filter"),
        ((Filtered("*", (True, False), HERE),), "filter '*', list [true, false] at t=0.25"),
        ((0.1, 1e-05), "gradient [0.1, 1e-05] at t=0.25"),
    ],
)
def test_notes(value, note):
    assert resolve("p", "x", 0.25, [("recipe", {"p": Setting(value, HERE)})]).note == note
