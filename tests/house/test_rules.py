"""Rules that keep the house readable: sizes, names, documentation, and nothing of one machine in the repository."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

import plait

ROOT = Path(__file__).parents[2]
PACKAGE = sorted((ROOT / "plait").rglob("*.py"))
EVERYTHING = sorted(
    file for folder in ("plait", "tests", "examples", "benchmarks", "docs") for file in (ROOT / folder).rglob("*.py")
)
LONGEST_FILE, LONGEST_FUNCTION = 400, 40


def _name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def _public(tree: ast.Module) -> list[ast.FunctionDef | ast.ClassDef]:
    nodes = (node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)))
    return [node for node in nodes if not node.name.startswith("_")]


def _exported(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


@functools.cache
def _imported_by_others() -> dict[Path, set[str]]:
    """The names that other files of the package import from each file, submodules left out."""
    found: dict[Path, set[str]] = defaultdict(set)
    for file in PACKAGE:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("plait"):
                place = ROOT / Path(*node.module.split("."))
                source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
                modules = {path.stem for path in place.glob("*")}
                found[source] |= {alias.name for alias in node.names} - modules
    return found


@pytest.mark.parametrize("file", EVERYTHING, ids=_name)
def test_files_and_functions_fit_a_reader(file):
    text = file.read_text()
    assert text.count("\n") <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= LONGEST_FUNCTION, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("file", EVERYTHING, ids=_name)
def test_names_say_what_things_are(file):
    assert file.stem not in {"utils", "util", "common", "helpers", "misc", "base"}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef):
            assert not re.search(r"^_?(Base|Abstract|Generalized)[A-Z]|Mixin$|Manager$|Helper$", node.name)


@pytest.mark.parametrize("file", PACKAGE, ids=_name)
def test_public_names_are_listed_and_documented(file):
    tree = ast.parse(file.read_text())
    public, exported = _public(tree), _exported(tree)
    if file.stem != "__main__" and file.read_text().strip():
        assert ast.get_docstring(tree), "the module says nothing"
    if exported is None:
        assert not public, f"no __all__, but {[node.name for node in public]}"
        return
    missing = _imported_by_others().get(file, set()) - set(exported)
    assert not missing, f"imported elsewhere, but not in __all__: {sorted(missing)}"
    assert len(set(exported)) == len(exported)
    for node in public:
        assert ast.get_docstring(node), f"{node.name} has no docstring"
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    assert ast.get_docstring(inner), f"{node.name}.{inner.name} has no docstring"


@pytest.mark.parametrize("file", [file for file in PACKAGE if file.stem != "__main__"], ids=_name)
def test_what_is_listed_is_there(file):
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    for name in getattr(module, "__all__", ()):
        assert getattr(module, name) is not None


def test_the_package_offers_what_it_lists():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = plait.nothing
    homes = {name for names in plait._HOMES.values() for name in names}
    assert homes | {"__version__"} == set(plait.__all__)


def _tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [file for name in listed.split("\0") if name and (file := ROOT / name).is_file()]


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("an absolute path", r"""["'`\s=(](/(root|home|Users|mnt|srv|opt|work|workspace)/\w)"""),
        ("a registry's host", r"pypi\.org|pythonhosted|pytorch\.org/whl|index-url|anaconda\.(org|com)|mirrors?\."),
        ("a conflict marker", r"^(<{7}|>{7}) "),
    ],
)
def test_the_repository_has_nothing_of_one_machine(what, pattern):
    found = []
    for file in _tracked():
        if file == Path(__file__) or file.suffix in {".npz", ".png", ".safetensors", ".bin"}:
            continue
        text = file.read_bytes().decode("utf-8", "replace")
        found += [f"{_name(file)}: {match[0].strip()}" for match in re.finditer(pattern, text, re.MULTILINE)]
    assert not found, f"{what} in {found}"


def test_the_version_is_one():
    stated = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert stated
    assert stated[1] == plait.__version__
    assert f"[{plait.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
