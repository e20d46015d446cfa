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
from plait.methods import find_method, method_names
from plait.methods.method import Method

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
VARIANTS: dict[str, dict[str, Any]] = {
    "ties over the model": {"scope": "model", "rescale": "l1", "normalize": False},
    "dare_linear by probability": {"rescale": "probability"},
    "model_stock by row": {"filter_wise": True},
    "nuslerp of deltas": {},
    "multislerp of deltas": {},
    "nuslerp by row": {"nuslerp_flatten": False},
    "nuslerp by column": {"nuslerp_flatten": False, "nuslerp_row_wise": True},
    "breadcrumbs by row": {"per": "row"},
    "breadcrumbs_ties by row": {"per": "row"},
    "ram with a share": {"relative": True},
}
"""What a method is also told, where the engine then treats it otherwise: values for all models, or a base to subtract."""
EACH = {"weight": (0.7, 0.4), "density": (0.4, 0.6)}
"""Numbers that tell two models apart."""
OWN = {"cabs": {"n": 1, "m": 4}}
"""Where the defaults leave tensors as small as these whole."""


def shared_of(method: Method) -> dict[str, Any]:
    """Values for all models: the middle of what lies in a range, so that something happens; else the defaults."""
    alone = {key: declared for key, declared in method.parameters.items() if not declared.per_model}
    ranged = {key: (p.low + p.high) / 2 for key, p in alone.items() if p.low is not None and p.high is not None}
    needed = {key: 0.1 for key in alone if key not in method.defaults}
    scale = {"scale": 0.9} if "scale" in alone else {}
    return needed | ranged | scale | OWN.get(method.name, {})


def case_of(name: str) -> dict[str, Any]:
    """How a method merges a and b (b alone, where it takes one): its needs and parameters are read off it."""
    method = method_of(name)
    each = {key: numbers for key, numbers in EACH.items() if key in method.parameters}
    needed = method.base == "required" or name.endswith("of deltas")
    return {
        "base": "base" if needed else "a" if method.base == "first" else None,
        "models": {
            model: {key: numbers[i] for key, numbers in each.items()}
            for i, model in enumerate("ab")
            if model == "b" or method.max_models != 1
        },
        "all": shared_of(method) | VARIANTS.get(name, {}),
    }


def method_of(name: str) -> Method:
    return find_method(name.split(" ", maxsplit=1)[0])


ALL = [name for name in method_names() if name != "passthrough"]
METHODS: dict[str, dict[str, Any]] = {name: case_of(name) for name in [*ALL, *VARIANTS]}
"""What is merged how."""


def way(name: str) -> tuple[Any, ...]:
    """What of a method decides how the engine feeds it."""
    case, method = METHODS[name], method_of(name)
    given = {**method.defaults, **case["all"]}
    chosen = method.chosen(given)
    counted = any(measured.counts for measured in chosen.measured.values())
    over_model = given.get("scope") == "model" and bool(chosen.measured or chosen.sees.gram)
    spaces = method.subtracts(base=bool(case["base"])), method.base == "first"
    return chosen.locality, spaces, bool(chosen.random), counted, over_model


REPRESENTATIVES = list({way(name): name for name in reversed(METHODS)}.values())[::-1]
"""One method for each way that the engine has."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes `method` on every method, and by `@pytest.mark.kinds("BF16", …)` with an element type.

    Every method has the first of the types; one method for each way that the engine has gets the others, too. By
    `@pytest.mark.representatives` it is these methods alone.
    """
    if "method" not in metafunc.fixturenames:
        return
    names = list(METHODS)
    if metafunc.definition.get_closest_marker("representatives"):
        names = REPRESENTATIVES
    mark = metafunc.definition.get_closest_marker("kinds")
    if mark is None:
        metafunc.parametrize("method", names, ids=[name.replace(" ", "_") for name in names])
        return
    first, *others = mark.args
    pairs = [(name, first) for name in names] + [(name, kind) for kind in others for name in REPRESENTATIVES]
    metafunc.parametrize(("method", "kind"), pairs, ids=[f"{name.replace(' ', '_')}-{kind}" for name, kind in pairs])


@pytest.fixture
def every_method() -> dict[str, dict[str, Any]]:
    """What `method` runs through, by name."""
    return METHODS


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
            models = [{"model": one, "parameters": values} for one, values in case["models"].items()]
            document: dict[str, Any] = {"models": models, "merge_method": what.split(" ", maxsplit=1)[0]}
            if case["base"]:
                document["base_model"] = case["base"]
            document["parameters"] = case["all"]
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
