"""Recipes: read strictly, with all faults told at once, into frozen data."""

from plait.recipe.mentions import filters_in, levels_of, model_mentions, parameter_mentions
from plait.recipe.read import load_recipe, parse_recipe
from plait.recipe.references import parse_reference
from plait.recipe.settings import Resolved, entries_of, evaluate, matches, resolve, rule_text, takes

__all__ = [
    "Resolved",
    "entries_of",
    "evaluate",
    "filters_in",
    "levels_of",
    "load_recipe",
    "matches",
    "model_mentions",
    "parameter_mentions",
    "parse_recipe",
    "parse_reference",
    "resolve",
    "rule_text",
    "takes",
]
