"""Which values parameters take, from recipes and from Python."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from plait.methods import Parameter, find_method

FREE = Parameter(float, "")
SHARE = Parameter(float, "", low=0, high=1)
COUNT = Parameter(int, "", low=0)
SWITCH = Parameter(bool, "")
CHOICE = Parameter(str, "", choices=("a", "b"))
RESCALE = find_method("ties").parameters["rescale"]


@pytest.mark.parametrize(
    ("declared", "value", "read"),
    [
        (FREE, 3, 3.0),
        (FREE, -0.5, -0.5),
        (FREE, "0.5", 0.5),
        (FREE, " -1e-3 ", -0.001),
        (FREE, np.float32(0.5), 0.5),
        (FREE, np.int64(2), 2.0),
        (FREE, Fraction(1, 2), 0.5),
        (SHARE, 0, 0.0),
        (SHARE, "1", 1.0),
        (COUNT, 10, 10),
        (COUNT, 10.0, 10),
        (COUNT, "10", 10),
        (COUNT, "1e1", 10),
        (SWITCH, True, True),
        (CHOICE, "b", "b"),
        (RESCALE, True, "l1"),
        (RESCALE, False, "none"),
        (RESCALE, "probability", "probability"),
    ],
)
def test_taken(declared, value, read):
    assert declared.fault(value) == ""
    assert declared.read(value) == read
    assert type(declared.read(value)) is declared.kind


@pytest.mark.parametrize(
    ("declared", "value", "expected"),
    [
        *((FREE, value, "a number") for value in ("", "high", "1_0", "nan", "inf", None, True, [1], 1j, 10**400)),
        *((FREE, value, "a number") for value in (float("nan"), float("inf"), -float("inf"), np.float32("nan"))),
        *((SHARE, value, "a number from 0 to 1") for value in (-0.1, 1.5, "1.5", float("nan"), "x")),
        *((COUNT, value, "a whole number, 0 or more") for value in (-1, 0.5, "0.5", "ten", False)),
        *((SWITCH, value, "true or false") for value in (1, 0, "true", None)),
        *((CHOICE, value, "one of a, b") for value in ("c", True, 1, None)),
        *((RESCALE, value, "one of l1, probability, none") for value in ("L1", 1, None)),
    ],
)
def test_refused(declared, value, expected):
    assert declared.fault(value) == f"expected {expected}"


def test_ranges_in_words():
    assert Parameter(float, "", high=2).range_text() == "a number, 2 or less"
    assert Parameter(int, "", low=1, high=9).range_text() == "a whole number from 1 to 9"
    assert CHOICE.range_text() == "a | b"
    assert SWITCH.range_text() == "true or false"
