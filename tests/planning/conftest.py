from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import plait


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch):
    """Write an indented recipe beside the models, and work in its folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "r.yml") -> str:
        (tmp_path / name).write_text(textwrap.dedent(text))
        return name

    return write


@pytest.fixture
def faults(recipe):
    """The faults of an indented recipe, as printed; none when it can be planned."""

    def told(text: str) -> list[str]:
        try:
            plait.plan(recipe(text))
        except plait.RecipeError as error:
            return [str(fault) for fault in error.faults]
        return []

    return told


@pytest.fixture
def llamas(write_llama):
    """Three Llamas of two layers: base, a and b."""
    return [write_llama(name, seed) for seed, name in enumerate(("base", "a", "b"))]


@pytest.fixture
def write_model(tmp_path: Path):
    """Write a checkpoint of the arrays given, with a config or without."""

    def write(name: str, arrays: dict[str, np.ndarray], config: dict | None = None) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config))
        return folder

    return write


@pytest.fixture
def warnings_of(recipe):
    """The warnings of an indented recipe's plan, as printed."""
    return lambda text: [str(warning) for warning in plait.plan(recipe(text)).warnings]
