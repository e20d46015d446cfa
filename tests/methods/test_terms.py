"""Methods in numpy's terms or torch's own: each is given such arrays, between files and in memory, on every device."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import plait
from plait.methods import load_methods, loading

registry = import_module("plait.methods.method")  # (the package has a function of that name)
SHAPES = {"model.layers.0.a.weight": (37, 11), "model.layers.1.b.weight": (300, 301), "model.norm.weight": (11,)}
NAMES = ("one", "two", "three")
WEIGHT = np.array([0.25, 0.5, 0.75], np.float32)


@pytest.fixture(autouse=True)
def _forget():
    """Leave no method of a test behind."""
    before = dict(registry._METHODS), dict(loading._LOADED)
    yield
    for kept, was in zip((registry._METHODS, loading._LOADED), before, strict=True):
        kept.clear()
        kept.update(was)


@pytest.fixture
def models(tmp_path: Path) -> dict[str, dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    made = {}
    for name in ("base", *NAMES):
        made[name] = {key: random.standard_normal(shape).astype(np.float32) for key, shape in SHAPES.items()}
        (tmp_path / name).mkdir()
        save_file(made[name], tmp_path / name / "model.safetensors")
    return made


def merge(folder: Path, method: str, device: str, *, base: str | None, weight: bool):
    each = [f", parameters: {{weight: {number}}}" if weight else "" for number in WEIGHT]
    lines = ["models:", *(f"  - {{model: {name}{text}}}" for name, text in zip(NAMES, each, strict=True))]
    lines += [f"merge_method: {method}", *([f"base_model: {base}"] if base else [])]
    (folder / "recipe.yml").write_text("\n".join(lines))
    plait.merge(folder / "recipe.yml", folder / "out", device=device, overwrite=True)
    return load_file(next((folder / "out").glob("*.safetensors")))


TERMS = '''
import numpy as np

from plait import ops
from plait.methods import Array, Coefficients, Deltas, Density, Random, Weight, Weights, WeightsGram, method
from plait.methods.measures import Threshold


@method(paper="https://example.org/paper", locality="element", terms="{terms}")
def middling(weights: Weights, *, weight: Weight = 1.0) -> Array:
    """The median, in the terms of one library."""
    assert type(weights) is type(weight) is {kind}
    return {median}


@method(paper="https://example.org/paper", locality="row", terms="{terms}")
def even_rows(deltas: Deltas) -> Array:
    """Rows of length one."""
    assert type(deltas) is {kind}
    total = deltas.sum({axis}=0)
    return {rows}


@method(paper="https://example.org/paper", locality="measured", terms="{terms}")
def thinned(deltas: Deltas, *, threshold: Threshold, density: Density = 0.5, rng: Random) -> Array:
    """What is trimmed and dropped."""
    assert type(deltas) is type(threshold) is {kind}
    return ops.drop(ops.trim(deltas, threshold), density, rng).sum({axis}=0)


@method(paper="https://example.org/paper", locality="span", terms="{terms}")
def shortest(gram: WeightsGram) -> Coefficients:
    """The shortest model alone."""
    assert type(gram) is {kind}
    return {shortest}
'''
NUMPY = {
    "terms": "numpy",
    "kind": "np.ndarray",
    "axis": "axis",
    "median": "np.median(weights * weight, axis=0)",
    "rows": "total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-3)",
    "shortest": "(np.arange(len(gram)) == np.diag(gram).argmin()) * 1.0",
}
IN_TORCH = {
    "terms": "torch",
    "kind": "torch.Tensor",
    "axis": "dim",
    "median": "torch.quantile(weights * weight, 0.5, dim=0)",
    "rows": "total / torch.linalg.norm(total, dim=-1, keepdim=True).clamp(min=1e-3)",
    "shortest": "1.0 * (torch.arange(len(gram)) == torch.diag(gram).argmin())",
}
DEVICES = ["cpu", *(["torch:cpu"] if find_spec("torch") else [])]


@pytest.mark.parametrize("words", [NUMPY, IN_TORCH], ids=["numpy", "torch"])
def test_methods_in_the_terms_of_one_library_run_everywhere(words, models, tmp_path):
    if words is IN_TORCH and len(DEVICES) == 1:
        pytest.skip("torch is an extra")
    (tmp_path / "mine.py").write_text(("import torch\n" if words is IN_TORCH else "") + TERMS.format(**words))
    load_methods([str(tmp_path / "mine.py")])
    named = [models[name] for name in NAMES]
    expected = np.median([model["model.norm.weight"] * w for model, w in zip(named, WEIGHT, strict=True)], axis=0)
    for name, base, parameters in (
        ("middling", None, {"weight": WEIGHT}),
        ("even_rows", "base", {}),
        ("thinned", "base", {}),
        ("shortest", None, {}),
    ):
        files = [merge(tmp_path, name, device, base=base, weight=bool(parameters)) for device in DEVICES]
        memory = [plait.merge_tensors(named, name, base=models[base] if base else None, **parameters)]
        if len(DEVICES) == 2:
            import torch

            inside = [{key: torch.tensor(value) for key, value in model.items()} for model in [*named, models["base"]]]
            made = plait.merge_tensors(inside[:3], name, base=inside[3] if base else None, **parameters)
            assert {type(value) for value in made.values()} == {torch.Tensor}
            memory.append({key: value.numpy() for key, value in made.items()})
        for merged in [*files[1:], *memory]:
            for key, value in merged.items():
                np.testing.assert_allclose(value, files[0][key], rtol=1e-6, atol=1e-6, err_msg=f"{name} {key}")
        if name == "middling":
            np.testing.assert_allclose(files[0]["model.norm.weight"], expected, rtol=1e-6, atol=1e-6)
        if name == "shortest":
            for key, value in files[0].items():
                shortest = min(named, key=lambda model, key=key: np.linalg.norm(model[key]))
                np.testing.assert_array_equal(value, shortest[key])


def test_a_variant_is_in_the_terms_of_its_method(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\nfrom plait.methods import *\nfrom plait.methods.vocabulary import Flag\n"
        '@method(paper="x", locality="element", terms="numpy")\n'
        'def worded(deltas: Deltas, *, flag: Flag = False):\n    """A."""\n    return np.sort(deltas, axis=0)[0]\n'
        '@worded.when(locality="row", flag=True)\n'
        'def other(deltas: Deltas, *, flag: Flag = False):\n    """B."""\n    return np.sort(deltas, axis=0)[-1]\n'
    )
    load_methods([str(tmp_path / "mine.py")])
    torch = pytest.importorskip("torch")
    given = [{"w": torch.tensor([float(i), -float(i)])} for i in (1, 2)]
    base = {"w": torch.zeros(2)}
    assert plait.merge_tensors(given, "worded", base=base)["w"].tolist() == [1, -2]
    assert plait.merge_tensors(given, "worded", base=base, flag=True)["w"].tolist() == [2, -1]
