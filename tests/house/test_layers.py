"""Imports point one way. The table is the architecture: what each part may import besides itself."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FACTS = {"plait.errors", "plait.dtypes"}
MAY_IMPORT: dict[str, set[str]] = {
    "plait.errors": set(),
    "plait.dtypes": set(),
    "plait.caches": set(),
    "plait.ops": {"plait.dtypes", "plait.caches"},
    "plait.methods": {*FACTS, "plait.ops"},
    "plait.recipe": FACTS,
    "plait.structure": FACTS,
    "plait.hub": {"plait.errors", "plait.caches"},
    # ops: quantised weights and adapters are made on demand, by the same kernels; hub: names, and parts of files
    "plait.checkpoint": {*FACTS, "plait.structure", "plait.ops", "plait.hub"},
    "plait.output.config": {*FACTS, "plait.structure", "plait.output.layer_settings"},
    "plait.output.layer_settings": {*FACTS, "plait.structure"},
    "plait.planning": {
        *FACTS, "plait.methods", "plait.recipe", "plait.structure", "plait.checkpoint", "plait.output.config",
        "plait.hub",
    },
    "plait.engine.hashes": {*FACTS, "plait.checkpoint"},
    "plait.output": {
        "plait", *FACTS, "plait.structure", "plait.checkpoint", "plait.planning", "plait.engine.hashes",
        "plait.output.config",
    },
    # structure: names of the output are aligned with those of its model class
    "plait.engine": {
        *FACTS, "plait.ops", "plait.methods", "plait.structure", "plait.checkpoint", "plait.planning", "plait.output",
        "plait.engine.hashes", "plait.hub",
    },
    # recipe, planning, methods, output: merging adapters into an adapter is a merge by recipe
    "plait.adapters": {
        *FACTS, "plait.hub", "plait.ops", "plait.methods", "plait.recipe", "plait.structure", "plait.checkpoint",
        "plait.planning", "plait.output", "plait.engine", "plait.engine.hashes",
    },
    # planning: which chat template a model has
    "plait.export": {*FACTS, "plait.hub", "plait.ops", "plait.structure", "plait.checkpoint", "plait.planning"},
    "plait.api": {*FACTS, "plait.export", "plait.adapters", "plait.recipe", "plait.checkpoint", "plait.planning", "plait.engine", "plait.output"},
    "plait.cli": {
        "plait", *FACTS, "plait.api", "plait.methods", "plait.checkpoint", "plait.planning", "plait.engine",
        "plait.adapters",
    },
    "plait.__main__": {"plait.cli"},
    "plait": {*FACTS, "plait.hub", "plait.export", "plait.api", "plait.checkpoint", "plait.planning", "plait.engine", "plait.adapters"},
}  # fmt: skip
HEAVY = {"torch", "transformers", "lm_eval", "optuna", "ray", "peft", "accelerate", "gguf"}
MODULES = sorted((ROOT / "plait").rglob("*.py"))


def _name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _part(module: str) -> str:
    """The longest entry of the table that the module lies in; modules directly in `plait` only under their own name."""
    words = module.split(".")
    names = [".".join(words[:n]) for n in range(len(words), 0, -1)]
    return next(name for name in names if name in MAY_IMPORT and (name != "plait" or module == "plait"))


def _imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in whole if (ROOT / Path(*name.split("."))).with_suffix(".py").exists()}
            packages = {name for name in whole if (ROOT / Path(*name.split("."))).is_dir()}
            found |= modules | packages or {node.module or ""}
    return found


def test_the_table_has_no_circle():
    graph = {part: {other for other in may if other != "plait"} for part, may in MAY_IMPORT.items()}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index("plait.ops") < order.index("plait.planning") < order.index("plait.cli")


@pytest.mark.parametrize("file", MODULES, ids=_name)
def test_imports_keep_to_the_table(file):
    own = _part(_name(file))
    wanted = {_part(name) for name in _imports(ast.parse(file.read_text())) if name.split(".")[0] == "plait"}
    assert wanted - {own} <= MAY_IMPORT[own], f"{own} may not import {sorted(wanted - {own} - MAY_IMPORT[own])}"


@pytest.mark.parametrize("file", MODULES, ids=_name)
def test_extras_are_imported_inside_functions(file):
    if file.is_relative_to(ROOT / "plait/ops/on_torch"):
        return  # is itself imported only for torch tensors; test_without_torch holds that
    tree = ast.parse(file.read_text())
    within = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    typing = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    inside = {id(node) for outer in (*within, *typing) for node in ast.walk(outer)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in inside:
            names = {name.split(".")[0] for name in _imports(node)}
            assert not names & HEAVY, f"line {node.lineno}"
