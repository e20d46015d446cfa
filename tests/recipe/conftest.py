from __future__ import annotations

import textwrap

import pytest

from plait.errors import RecipeError
from plait.recipe import parse_recipe


@pytest.fixture
def parse():
    """Parse an indented recipe text."""
    return lambda text: parse_recipe(textwrap.dedent(text), "r.yml")


@pytest.fixture
def faults(parse):
    """The faults of an indented recipe text, as printed; none when it parses."""

    def told(text):
        try:
            parse(text)
        except RecipeError as error:
            return [str(fault) for fault in error.faults]
        return []

    return told
