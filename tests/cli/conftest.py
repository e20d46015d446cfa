from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from plait.cli import main

TIES = """\
models:
  - model: a
    parameters: {weight: 0.5, density: 0.5}
  - model: b
    parameters: {weight: 0.25, density: 0.5}
merge_method: ties
base_model: base
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def house(tmp_path: Path, monkeypatch, write_llama):
    """A folder with three models and a recipe, `ties.yml`; the working directory."""
    for seed, name in enumerate(("base", "a", "b")):
        write_llama(name, seed)
    (tmp_path / "ties.yml").write_text(TIES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plait(monkeypatch, capsys):
    """Run the command line in this process."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["plait", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), said.out, said.err)

    return run
