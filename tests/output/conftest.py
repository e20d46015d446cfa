from __future__ import annotations

import textwrap
from pathlib import Path

import pytest


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch):
    """Write an indented recipe beside the models, and work in its folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "r.yml") -> str:
        (tmp_path / name).write_text(textwrap.dedent(text))
        return name

    return write


@pytest.fixture
def card_of(tmp_path: Path):
    """Give a model a card whose front matter states a licence."""

    def write(name: str, licence: str | None) -> None:
        front = f"license: {licence}\n" if licence else "tags: [x]\n"
        (tmp_path / name / "README.md").write_text(f"---\n{front}---\n# {name}\n")

    return write
