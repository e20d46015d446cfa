"""The documents: every block of code in them runs, every recipe is one, every link leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from plait.methods.describe import as_markdown
from plait.planning.parameters import check_document
from plait.recipe import parse_recipe

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
_BLOCK = re.compile(r"(<!-- not run -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    language: str
    text: str


def _blocks(page: Path) -> list[Block]:
    found = _BLOCK.findall(page.read_text())
    return [Block(language, text) for not_run, language, text in found if not not_run]


def _name(page: Path) -> str:
    return page.name


def _whole(text: str) -> str:
    """A recipe; what a fragment lacks is added below it."""
    if "merge_method:" in re.sub(r"^ .*", "", text, flags=re.MULTILINE):
        return text
    return text + "models: [{model: org/model}]\nmerge_method: ties\nbase_model: org/base\nparameters: {weight: 1}\n"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_code_runs_in_the_order_of_the_page(page, tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = ["import warnings", "warnings.simplefilter('error')"]
    for language, text in _blocks(page):
        named = re.match(r"# (\S+\.(ya?ml|py|toml))\n", text)
        if named:
            script.append(f"import pathlib\npathlib.Path({named[1]!r}).write_text({text!r})")
        elif language == "python":
            script.append(text)
        elif language == "sh":
            script.append(f"import subprocess\nsubprocess.run(['bash', '-ec', {text!r}], check=True)")
    (tmp_path / "page.py").write_text("from __future__ import annotations\n" + "\n".join(script))
    done = subprocess.run(
        [sys.executable, "page.py"],
        cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_recipes_are_recipes(page):
    blocks = _blocks(page)
    own = {
        name
        for language, text in blocks
        if language == "python"
        for name in re.findall(r"^def (\w+)", text, re.MULTILINE)
    }
    for language, text in blocks:
        if language == "yaml":
            for recipe in parse_recipe(_whole(text), page.name):
                assert recipe.merge_method in own or not check_document(recipe), text


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_blocks_say_their_language(page):
    assert {block.language for block in _blocks(page)} <= {"python", "sh", "yaml", "toml", "text"}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page):
    text = _BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        file, _, part = target.partition("#")
        found = page.parent / file if file else page
        assert found.exists(), target
        if part:
            titles = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            assert part in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_a_package_as_on_the_page_offers_its_methods(tmp_path):
    """What an installer would write for the page's package, beside the page's module."""
    files = {text.split("\n", 1)[0][2:]: text for _, text in _blocks(ROOT / "docs/extend.md") if text.startswith("# ")}
    project = files["pyproject.toml"]
    (group, points) = re.findall(r'\[project\.entry-points\."(.+)"\]\n(.+ = ".+")', project)[0]
    (tmp_path / "own_methods.py").write_text(files["own_methods.py"])
    information = tmp_path / "our_merge_methods-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: our-merge-methods\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{group}]\n{points.replace(chr(34), '')}\n")
    told = subprocess.run(
        [sys.executable, "-m", "plait", "methods", "trimmed_mean"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "How many models to leave out at either end." in told


def test_the_page_of_methods_is_up_to_date():
    assert (ROOT / "docs/methods.md").read_text() == as_markdown(), "run `make docs`"


def test_the_keys_of_a_recipe_are_all_described():
    from plait.recipe.read import _KEYS

    table = (ROOT / "docs/recipes.md").read_text().split("## Keys")[1].split("##")[0]
    assert set(_KEYS) == {key for key in re.findall(r"`(\w+)`", table) if key in _KEYS}
