"""From the text of a recipe file to `Recipe`s, with all of the file's faults at once."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from plait.dtypes import dtype_by_name
from plait.errors import Fault, RecipeError, Where, did_you_mean
from plait.recipe.adapter import read_adapter_section
from plait.recipe.document import Fields, Page, documents, is_null, is_text, listed, open_fields, pairs, text_of
from plait.recipe.experts import read_experts
from plait.recipe.inputs import read_modules
from plait.recipe.parameters import read_component, read_parameters, read_setting
from plait.recipe.references import read_reference
from plait.recipe.stages import in_order
from plait.recipe.tokens import read_tokenizer
from plait.recipe.types import ModelRef, PostStep, Recipe, TensorRule

__all__ = ["load_recipe", "parse_recipe"]

_KEYS = (
    *("name", "models", "slices", "modules", "merge_method", "base_model", "parameters", "dtype", "out_dtype"),
    *("tokenizer_source", "tokenizer", "chat_template", "tensors", "post", "seed", "strict", "experts", "adapter"),
)
_SELECTORS = ("match", "regex", "component")
_ACTIONS = ("merge_method", "parameters", "copy_from", "drop")
_FLOATS = ("float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2")
_SHORT = {"bf16": "bfloat16", "fp16": "float16", "f16": "float16", "half": "float16", "fp32": "float32"}


def load_recipe(path: str | Path) -> tuple[Recipe, ...]:
    """Read a recipe file: its documents in the order in which they must run, the final one last.

    Raises:
        RecipeError: the file cannot be read, or is at fault; it carries all faults of the file.
    """
    file = str(path)
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise RecipeError([Fault("The file is not UTF-8 text.", Where(file, line))]) from error
    except OSError as error:
        raise RecipeError([Fault(f"Cannot read the recipe '{file}': {error.strerror or error}.")]) from error
    return parse_recipe(text, file)


def parse_recipe(text: str, file: str = "recipe") -> tuple[Recipe, ...]:
    """Read the text of a recipe; `file` is its name in faults.

    Raises:
        RecipeError: the text is at fault; it carries all faults.
    """
    page = Page(file, text.removeprefix("\ufeff"))
    nodes, complete = documents(page)
    recipes = [recipe for node in nodes if (recipe := _read_document(page, node)) is not None]
    if not nodes and not page.faults:
        page.faults.append(Fault("The recipe is empty.", Where(file, 1)))
    ordered = in_order(page, recipes) if complete else ()
    if page.faults:
        error = RecipeError(page.faults)
        error.readable = tuple(recipes)
        raise error
    if page.replaced:
        ordered = tuple(replace(recipe, text=page.standalone()) for recipe in ordered)
    return ordered


def _read_document(page: Page, node: Node) -> Recipe | None:
    """Read one document; where it is at fault, what could be read of it."""
    if is_null(node):
        page.fault(node, "This document is empty.", "Remove the '---' before it, or write a document.")
        return None
    page.warnings = []
    fields = open_fields(page, node, "A recipe", _KEYS)
    if fields is None:
        return None
    method_where = page.where(fields.key_node("merge_method"))
    fields.require("merge_method")
    return Recipe(
        file=page.file,
        where=page.where(node),
        merge_method=fields.text("merge_method") or "",
        merge_method_where=method_where,
        modules=read_modules(page, fields),
        name=fields.text("name"),
        base_model=_model(page, fields, "base_model"),
        parameters=read_parameters(page, fields.node_of("parameters")),
        dtype=_dtype(page, fields, "dtype"),
        out_dtype=_dtype(page, fields, "out_dtype"),
        tokenizer=read_tokenizer(page, fields),
        chat_template=fields.text("chat_template"),
        tensors=_rules(page, fields.node_of("tensors")),
        post=_post(page, fields.node_of("post")),
        seed=fields.whole("seed", 0),
        strict=bool(fields.flag("strict")),
        experts=read_experts(page, fields),
        adapter=read_adapter_section(page, fields),
        text=page.text,
        warnings=tuple(dict.fromkeys(page.warnings)),
    )


def _model(page: Page, fields: Fields, key: str) -> ModelRef | None:
    node = fields.node_of(key)
    return None if node is None else read_reference(page, node, f"'{key}'")


def _dtype(page: Page, fields: Fields, key: str) -> str | None:
    node, written = fields.node_of(key), fields.text(key)
    if node is None or written is None:
        return None
    name = written.removeprefix("torch.")
    if name in _FLOATS:
        return name
    known = dtype_by_name(name)
    choices = f"Choose from: {', '.join(_FLOATS)}."
    if known is not None and not known.is_float:
        message = f"'{key}: {written}' would destroy the weights: they are fractions, and {name} cannot hold these."
        page.fault(node, message, choices)
        return None
    near = f"Did you mean '{_SHORT[name.lower()]}'?" if name.lower() in _SHORT else did_you_mean(name, _FLOATS)
    page.fault(node, f"'{key}' has no element type '{written}'.", f"{near} {choices}".strip())
    return None


def _rules(page: Page, node: Node | None) -> tuple[TensorRule, ...]:
    read = [] if node is None else [_rule(page, entry) for entry in listed(page, node, "'tensors'")]
    return tuple(rule for rule in read if rule is not None)


def _rule(page: Page, node: Node) -> TensorRule | None:
    fields = open_fields(page, node, "An entry of 'tensors'", _SELECTORS + _ACTIONS)
    if fields is None:
        return None
    _check_selectors(page, fields)
    _check_actions(page, fields)
    drop = fields.flag("drop")
    if drop is False:
        page.fault(fields.key_node("drop"), "'drop' can only be true.", "Leave it out to keep the tensors.")
    rule = TensorRule(
        match=fields.text("match"),
        where=page.where(node),
        merge_method=fields.text("merge_method"),
        parameters=read_parameters(page, fields.node_of("parameters")),
        copy_from=_model(page, fields, "copy_from"),
        drop=bool(drop),
        regex=_regex(page, fields),
        component=read_component(page, fields),
    )
    return rule if rule.match or rule.regex or rule.component else None


def _check_selectors(page: Page, fields: Fields) -> None:
    if any(fields.node_of(key) is not None or fields.suggests(key) for key in _SELECTORS):
        return
    ways = "'match' (a glob), 'regex' or 'component', or several of these"
    page.fault(fields.node, f"An entry of 'tensors' needs {ways}.")


def _regex(page: Page, fields: Fields) -> str | None:
    written, node = fields.text("regex"), fields.node_of("regex")
    if written is None or node is None:
        return None
    try:
        re.compile(written)
    except re.error as error:
        page.fault(node, f"'regex' is no regular expression: {error}.", "It is written as for Python's re.search.")
        return None
    return written


def _check_actions(page: Page, fields: Fields) -> None:
    """A rule does one thing: merge in another way, copy, or drop."""
    given = [key for key in _ACTIONS if fields.node_of(key) is not None]
    ways = "one of: 'merge_method' and/or 'parameters'; 'copy_from'; 'drop: true'"
    if not given and not any(fields.suggests(key) for key in _ACTIONS):
        page.fault(fields.node, f"An entry of 'tensors' needs {ways}.")
    elif len(given) > 1 and set(given) != {"merge_method", "parameters"}:
        has = " and ".join(f"'{key}'" for key in given)
        page.fault(fields.node, f"An entry of 'tensors' takes {ways}; this one has {has}.")


def _post(page: Page, node: Node | None) -> tuple[PostStep, ...]:
    read = [] if node is None else [_post_step(page, entry) for entry in listed(page, node, "'post'")]
    return tuple(step for step in read if step is not None)


def _post_step(page: Page, node: Node) -> PostStep | None:
    if is_text(node):
        name = text_of(page, node, "An entry of 'post'")
        return None if name is None else PostStep(name, page.where(node))
    steps = pairs(page, node) if isinstance(node, MappingNode) else {}
    if len(steps) != 1:
        message = f"An entry of 'post' must be a step's name, or a mapping of one name, not {page.shown(node)}."
        page.fault(node, message, "Begin each step with its own '- '." if steps else "")
        return None
    ((name, (key_node, value)),) = steps.items()
    if is_null(value):
        return PostStep(name, page.where(key_node))
    if isinstance(value, MappingNode):
        return PostStep(name, page.where(key_node), read_parameters(page, value))
    if isinstance(value, (ScalarNode, SequenceNode)):
        setting = read_setting(page, value, "value")
        return PostStep(name, page.where(key_node), {} if setting is None else {"value": setting})
    return None
