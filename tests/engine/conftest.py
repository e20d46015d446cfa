"""Small checkpoints in any element type, recipes, and units, batches and tiles small enough to have many of each."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - numpy learns the types' names
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

import plait
import plait.engine.run  # before a fixture changes what its modules import from each other
from plait.dtypes import DTYPES

HIDDEN, INNER, WORDS = 96, 150, 211
SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (WORDS, HIDDEN),
    "model.layers.0.mlp.down_proj.weight": (HIDDEN, INNER),
    "model.layers.0.mlp.up_proj.weight": (INNER, HIDDEN),
    "model.layers.0.input_layernorm.weight": (HIDDEN,),
    "model.layers.1.mlp.down_proj.weight": (HIDDEN, INNER),
    "model.layers.1.mlp.up_proj.weight": (INNER, HIDDEN),
    "model.layers.1.input_layernorm.weight": (HIDDEN,),
    "model.norm.weight": (HIDDEN,),
    "logit_scale": (),
    "lm_head.weight": (WORDS, HIDDEN),
}
CONFIG = {"architectures": ["TinyForCausalLM"], "model_type": "tiny", "num_hidden_layers": 2, "hidden_size": HIDDEN}
METHODS: dict[str, dict[str, Any]] = {
    "linear": {"models": {"a": {"weight": 0.7}, "b": {"weight": 0.4}}},
    "task_arithmetic": {"base": True, "models": {"a": {"weight": 0.7}, "b": {"weight": 0.4}}, "all": {"lambda": 0.9}},
    "magmax": {"base": True},
    "ties": {"base": True, "models": {"a": {"weight": 0.7, "density": 0.4}, "b": {"weight": 0.4, "density": 0.6}}},
    "ties over the model": {
        "base": True,
        "models": {"a": {"weight": 0.7, "density": 0.4}, "b": {"weight": 0.4, "density": 0.6}},
        "all": {"scope": "model", "rescale": "l1", "normalize": False},
    },
    "dare_ties": {"base": True, "models": {"a": {"weight": 0.7, "density": 0.4}, "b": {"weight": 0.4, "density": 0.6}}},
    "dare_linear": {
        "base": True,
        "models": {"a": {"weight": 0.7, "density": 0.4}, "b": {"weight": 0.4, "density": 1.0}},
        "all": {"rescale": "probability"},
    },
    "model_stock": {"base": True},
    "model_stock by row": {"base": True, "all": {"filter_wise": True}},
    "karcher": {},
    "slerp": {"first": True, "all": {"t": 0.3}},
    "nuslerp": {"models": {"a": {"weight": 0.7}, "b": {"weight": 0.4}}},
    "nuslerp of deltas": {"base": True, "models": {"a": {"weight": 0.7}, "b": {"weight": 0.4}}},
    "nuslerp by row": {"models": {"a": {"weight": 0.7}, "b": {"weight": 0.4}}, "all": {"nuslerp_flatten": False}},
    "nuslerp by column": {
        "base": True,
        "models": {"a": {"weight": 0.7}, "b": {"weight": 0.4}},
        "all": {"nuslerp_flatten": False, "nuslerp_row_wise": True},
    },
    "multislerp": {"base": True, "models": {"a": {"weight": 0.7}, "b": {"weight": 0.4}}},
    "geometric_median": {},
    "metagpt": {"base": True},
    "varm": {"base": True},
    "perpendicular": {"base": True},
    "add_difference": {"base": True},
    "arcee_fusion": {"first": True},
}
"""What is merged how; "base" beside a and b, or "first" of two."""


@pytest.fixture(params=list(METHODS), ids=lambda name: name.replace(" ", "_"))
def method(request) -> str:
    """Every method, and the variants that the engine treats otherwise."""
    return request.param


@pytest.fixture
def every_method() -> set[str]:
    """The names of the methods that `method` runs through."""
    return {name.split(" ")[0] for name in METHODS}


@pytest.fixture
def small(monkeypatch):
    """Cut everything small: units of 8192 elements (which is part of the hashes), batches and tiles of 4096."""
    monkeypatch.setattr("plait.engine.hashes.CHUNK", 8192)
    monkeypatch.setattr("plait.engine.work.CHUNK", 8192)
    monkeypatch.setattr("plait.engine.fingerprint.CHUNK", 8192)
    monkeypatch.setattr("plait.engine.device.Cpu.batch", 4096)
    monkeypatch.setattr("plait.engine.device.Cpu.tile", 4096)


@pytest.fixture
def write(tmp_path: Path, monkeypatch):
    """Write a checkpoint; `change` edits its arrays, `kinds` are the element types by model, `shards` the files."""
    monkeypatch.chdir(tmp_path)

    def made(
        name: str,
        seed: int,
        kind: str = "F32",
        *,
        shapes: dict[str, tuple[int, ...]] | None = None,
        change: Any = None,
        shards: int = 1,
        config: dict[str, Any] | None = None,
    ) -> Path:
        dtype = np.dtype(DTYPES[kind].name)
        arrays = {}
        for number, (key, shape) in enumerate((shapes or SHAPES).items()):
            base = np.random.default_rng([0, number]).standard_normal(shape)
            delta = np.random.default_rng([seed, number]).standard_normal(shape) if seed else 0.0
            arrays[key] = np.asarray(0.5 * base + 0.1 * delta).astype(dtype)
        if change:
            change(arrays)
        return save(tmp_path / name, arrays, shards, CONFIG if config is None else config)

    return made


def save(folder: Path, arrays: dict[str, np.ndarray], shards: int, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    names = list(arrays)
    if shards == 1:
        save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        weight_map = {}
        for part in range(shards):
            file = f"model-{part + 1:05d}-of-{shards:05d}.safetensors"
            save_file({name: arrays[name] for name in names[part::shards]}, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(names[part::shards], file)
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def recipe(tmp_path: Path):
    """Write a recipe: the name of one of METHODS, or text, with settings to add at the top."""

    def made(what: str, name: str = "recipe.yml", **more: Any) -> Path:
        if what in METHODS:
            case = METHODS[what]
            each = case.get("models", {})
            models = [{"model": one, "parameters": each.get(one, {})} for one in ("a", "b")]
            document: dict[str, Any] = {"models": models, "merge_method": what.split(" ", maxsplit=1)[0]}
            if case.get("base"):
                document["base_model"] = "base"
            if case.get("first"):
                document["base_model"] = "a"
            document["parameters"] = case.get("all", {})
            text = yaml.safe_dump(document | more)
        else:
            text = textwrap.dedent(what) + (yaml.safe_dump(more) if more else "")
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return made


@pytest.fixture
def models(write):
    """Base, a and b in one element type, or one each."""

    def made(*kinds: str, **options: Any) -> None:
        each = kinds if len(kinds) == 3 else (kinds or ("F32",)) * 3
        for seed, (name, kind) in enumerate(zip(("base", "a", "b"), each, strict=True)):
            write(name, seed, kind, **options)

    return made


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def merged(tmp_path: Path):
    """Merge into a folder of this name and return the bytes of all files in it; the folder is moved away."""

    def run(path: Path, **options: Any) -> dict[str, bytes]:
        number = len(list(tmp_path.glob("kept*")))
        plait.merge(path, tmp_path / "out", **options)
        found = bytes_of(tmp_path / "out")
        (tmp_path / "out").rename(tmp_path / f"kept{number}")
        return found

    return run


@pytest.fixture
def weights():
    """The raw bytes of every tensor of a folder, by name."""

    def read(folder: Path) -> dict[str, bytes]:
        return {name: array.tobytes() for name, array in plait.load(folder).items()}

    return read
