"""Methods in a user's own file: declared, loaded, merged with; or refused, saying how."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import plait
from plait.methods import MethodError, find_method, load_methods, loading, method_names

registry = import_module("plait.methods.method")  # (the package has a function of that name)

OWN = '''
"""Methods of our own."""

import numpy as np

from plait import ops
from plait.methods import Array, Deltas, Density, Random, Weight, Weights, method, post_step
from plait.methods.vocabulary import Number

ADDRESS = "https://example.org/paper"


@method(paper=ADDRESS, locality="element")
def middle(weights: Weights) -> Array:
    """Take the median, entry by entry."""
    return np.median(weights, axis=0)


@method(paper=ADDRESS, locality="element")
def clipped_sum(deltas: Deltas, *, weight: Weight, bound: Number = 0.5) -> Array:
    """Add up bounded deltas."""
    return (weight * np.clip(deltas, -bound, bound)).sum(axis=0)


@method(paper=ADDRESS, locality="row")
def unit_rows(weights: Weights, *, weight: Weight = 1.0) -> Array:
    """Average rows of length one. `[k, rows, columns] -> [rows, columns]`."""
    return (weight * weights / np.linalg.norm(weights, axis=-1, keepdims=True)).mean(axis=0)


@method(paper=ADDRESS, locality="matrix", max_models=1)
def rank_one(deltas: Deltas) -> Array:
    """Keep the largest singular value of one delta; of a vector, all of it."""
    if deltas.ndim < 3:
        return deltas[0]
    u, s, v = np.linalg.svd(deltas[0], full_matrices=False)
    return u[:, :1] * s[0] @ v[:1]


@method(paper=ADDRESS, locality="element")
def mask_and_flip(deltas: Deltas, *, rng: Random, density: Density = 0.5) -> Array:
    """Drop, then turn the sign around."""
    return -ops.drop(deltas, density, rng).sum(axis=0)


@method(paper=ADDRESS, locality="element")
def add_half(deltas: Deltas, *, weight: Weight) -> Array:
    """Half of task arithmetic, in ops alone: it is traced."""
    return 0.5 * ops.weighted_sum(deltas, weight)


@post_step
def negate(merged: Deltas) -> Array:
    """Turn the sign around."""
    return -merged
'''

TORCH = '''
import torch

from plait.methods import Array, Deltas, Weight, method


@method(paper="https://example.org/paper", locality="matrix")
def torch_polar(deltas: Deltas, *, weight: Weight) -> Array:
    """The orthogonal factor of the weighted sum."""
    total = (weight * deltas).sum(dim=0)
    if total.ndim < 2:
        return total
    u, _, v = torch.linalg.svd(total, full_matrices=False)
    return u @ v
'''
SHAPES = {"model.layers.0.a.weight": (37, 11), "model.layers.1.b.weight": (300, 301), "model.norm.weight": (11,)}


@pytest.fixture(autouse=True)
def _forget():
    """Leave no method of a test behind."""
    before = dict(registry._METHODS), dict(registry._POST_STEPS), dict(loading._LOADED)
    yield
    for kept, was in zip((registry._METHODS, registry._POST_STEPS, loading._LOADED), before, strict=True):
        kept.clear()
        kept.update(was)


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    load_methods([str(tmp_path / "own.py")])
    return str(tmp_path / "own.py")


@pytest.fixture
def models(tmp_path: Path) -> dict[str, dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    made = {}
    for name in ("base", "one", "two", "three"):
        made[name] = {key: random.standard_normal(shape).astype(np.float32) for key, shape in SHAPES.items()}
        (tmp_path / name).mkdir()
        save_file(made[name], tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": "none"}))
    return made


def merge(folder: Path, method: str, *, base: str | None = None, names=("one", "two", "three"), extra="", **options):
    lines = ["models:"]
    for number, name in enumerate(names, 1):
        lines.append(f"  - model: {name}")
        if "weight" in find_method(method).parameters:
            lines.append(f"    parameters: {{weight: {number / 4}}}")
    lines += [f"merge_method: {method}", *([f"base_model: {base}"] if base else []), extra]
    (folder / "recipe.yml").write_text("\n".join(lines))
    out = folder / f"out-{method}-{len(list(folder.iterdir()))}"
    plait.merge(folder / "recipe.yml", out, **options)
    return load_file(next(out.glob("*.safetensors")))


WEIGHT = np.array([0.25, 0.5, 0.75], np.float32)


def unit_rows(stack: np.ndarray) -> np.ndarray:
    weight = WEIGHT.reshape(-1, *[1] * (stack.ndim - 1))
    return (weight * stack / np.linalg.norm(stack, axis=-1, keepdims=True)).mean(axis=0)


def rank_one(delta: np.ndarray) -> np.ndarray:
    if delta.ndim < 2:
        return delta
    u, s, v = np.linalg.svd(delta.astype(np.float64), full_matrices=False)
    return s[0] * np.outer(u[:, 0], v[0])


@pytest.mark.parametrize("threads", [1, 2])
def test_every_locality_merges_between_files(own, models, tmp_path, threads):
    base = models["base"]
    stack = {key: np.stack([models[name][key] for name in ("one", "two", "three")]) for key in SHAPES}
    merged = {
        "middle": merge(tmp_path, "middle", threads=threads),
        "clipped_sum": merge(tmp_path, "clipped_sum", base="base", threads=threads),
        "unit_rows": merge(tmp_path, "unit_rows", threads=threads),
        "rank_one": merge(tmp_path, "rank_one", base="base", names=("one",), threads=threads),
        "add_half": merge(tmp_path, "add_half", base="base", threads=threads),
        "negated": merge(tmp_path, "add_half", base="base", extra="post: [{negate: {}}]", threads=threads),
    }
    for key, x in stack.items():
        weight = WEIGHT.reshape(-1, *[1] * (x.ndim - 1))
        half = 0.5 * (weight * (x - base[key])).sum(axis=0)
        for name, expected in (
            ("middle", np.median(x, axis=0)),
            ("clipped_sum", base[key] + (weight * np.clip(x - base[key], -0.5, 0.5)).sum(axis=0)),
            ("unit_rows", unit_rows(x)),
            ("rank_one", base[key] + rank_one(x[0] - base[key])),
            ("add_half", base[key] + half),
            ("negated", base[key] - half),
        ):
            np.testing.assert_allclose(merged[name][key], expected, rtol=2e-5, atol=2e-5, err_msg=f"{name} {key}")


def test_the_same_between_files_and_in_memory(own, models, tmp_path):
    named = [models[name] for name in ("one", "two", "three")]
    for method, base, parameters in (
        ("middle", None, {}),
        ("clipped_sum", "base", {"weight": WEIGHT}),
        ("unit_rows", None, {"weight": WEIGHT}),
        ("mask_and_flip", "base", {}),
        ("add_half", "base", {"weight": WEIGHT}),
    ):
        files = merge(tmp_path, method, base=base)
        memory = plait.merge_tensors(named, method, base=models[base] if base else None, **parameters)
        for key, value in memory.items():
            assert value.tobytes() == files[key].tobytes(), f"{method} {key}"


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is an extra")
def test_a_method_that_needs_torch_runs_on_a_torch_device(models, tmp_path):
    (tmp_path / "mine.py").write_text(TORCH)
    load_methods([str(tmp_path / "mine.py")])
    merged = merge(tmp_path, "torch_polar", base="base", device="torch:cpu")
    key = "model.layers.0.a.weight"
    polar = merged[key].astype(np.float64) - models["base"][key]
    np.testing.assert_allclose(polar.T @ polar, np.eye(11), atol=1e-5)


# Loading.


def test_loading_again_changes_nothing_until_the_file_does(tmp_path, monkeypatch):
    file = tmp_path / "mine.py"
    head = "from plait.methods import *\n"
    one = '@method(paper="x", locality="element")\ndef {}(weights: Weights):\n    """{}"""\n    return weights[0]\n'
    file.write_text(head + one.format("first_of_all", "One."))
    load_methods([str(file)])
    first = find_method("first_of_all")
    load_methods([str(file), str(file)])
    monkeypatch.chdir(tmp_path)
    load_methods(["mine.py"])  # the same, told another way
    assert find_method("first_of_all") is first
    file.write_text(head + one.format("first_of_all", "Two.") + one.format("another", "Three."))
    load_methods([str(file)])
    assert find_method("first_of_all").summary == "Two."
    file.write_text(head + one.format("another", "Four."))
    load_methods([str(file)])
    assert find_method("another").summary == "Four."
    assert "first_of_all" not in method_names()
    before = method_names()
    file.write_text(head + one.format("another", "Five.") + one.format("yet_another", "Six.") + "1 / 0\n")
    with pytest.raises(MethodError, match=r"mine\.py:10: ZeroDivisionError: division by zero"):
        load_methods([str(file)])
    assert method_names() == before
    assert find_method("another").summary == "Four."
    assert not (tmp_path / "__pycache__").exists()


def test_a_taken_name_is_refused(tmp_path):
    for number, (what, head) in enumerate(
        [
            ("a method 'ties'", '@method(paper="x", locality="element")\ndef ties'),
            ("a post-step 'clamp'", "@post_step\ndef clamp"),
        ]
    ):
        file = tmp_path / f"taken{number}.py"
        file.write_text(
            "from plait.methods import *\n"
            f'@method(paper="x", locality="element")\ndef before(weights: Weights):\n    """A."""\n\n{head}'
            '(deltas: Deltas):\n    """B."""\n'
        )
        known = method_names(), method_names(post=True), find_method("ties")
        with pytest.raises(MethodError, match=rf"taken{number}\.py:6: There is {what} already\. Choose another name\."):
            load_methods([str(file)])
        assert (method_names(), method_names(post=True), find_method("ties")) == known


def test_dataclasses_and_late_annotations_work_in_a_user_s_file(tmp_path):
    (tmp_path / "rich.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom plait.methods import *\n"
        "@dataclass\nclass Point:\n    x: int = 0\n"
        '@method(paper="x", locality="element")\ndef rich(deltas: Deltas, *, weight: Weight):\n    """A."""\n'
        "    return deltas[Point().x]\n"
    )
    load_methods([str(tmp_path / "rich.py")])
    assert find_method("rich").parameters.keys() == {"weight"}


def test_files_that_are_none(tmp_path):
    with pytest.raises(MethodError, match=r"There is no file .*nowhere\.py to load methods from"):
        load_methods([str(tmp_path / "nowhere.py")])
    (tmp_path / "broken.txt").write_text("def (")
    with pytest.raises(MethodError, match=r"broken\.txt: SyntaxError: .*line 1"):
        load_methods([str(tmp_path / "broken.txt")])


def test_an_installed_package_that_fails_is_named(monkeypatch):
    point = EntryPoint("mine", "package_that_is_not_there", "plait.methods")
    monkeypatch.setattr(loading, "entry_points", lambda group: [point] if group == "plait.methods" else [])
    with pytest.raises(MethodError, match="methods of the package package_that_is_not_there: ModuleNotFoundError"):
        load_methods([])


WRONG = {
    "deltas": ("", '"""A."""', "locality='element'", "the first argument must be Weights, Deltas"),
    "": ("", '"""A."""', "locality='element'", "the first argument must be Weights, Deltas"),
    "deltas: Deltas": ("", "pass", "locality='element'", "wrong has no docstring"),
    "deltas: Deltas, *, weight": ("", '"""A."""', "locality='element'", "'weight' is not annotated with a declared"),
    "deltas: Deltas, *, scale: float": ("", '"""A."""', "locality='element'", "'scale' is not annotated with a declared"),
    "deltas: Deltas, *, weight: Wieght": ("F", '"""A."""', "locality='element'", "name 'Wieght' is not defined"),
    "deltas: Deltas, **rest: Weight": ("", '"""A."""', "locality='element'", r"\* and \*\* arguments cannot be declared"),
    "deltas: Deltas, *, density: Density = 2": ("", '"""A."""', "locality='element'", "default of 'density' is 2; expected a number from 0 to 1"),
    "gram: DeltasGram": ("", '"""A."""', "locality='element'", "locality 'span' and a Gram argument go together"),
    "deltas: Deltas, *, a: Weight": ("", '"""A."""', "locality='span'", "locality 'span' and a Gram argument go together"),
    "gram: DeltasGram, *, rng: Random": ("", '"""A."""', "locality='span'", "nothing measured or random"),
    "deltas: Deltas, *, b: Weight": ("", '"""A."""', "locality='tensor'", "locality is one of element, row, .* not 'tensor'"),
    "deltas: Deltas, *, c: Weight": ("", '"""A."""', "locality='row', base='maybe'", "base is one of required, .* not 'maybe'"),
    "deltas: Deltas, *, d: Weight": ("", '"""A."""', "locality='row', min_models=3, max_models=2", "it takes 3 to 2 models"),
    "deltas: Deltas, *, f: Weight": ("", '"""A."""', "locality='row', terms='jax'", "terms is one of any, numpy, torch, not 'jax'"),
    "deltas: Deltas, *, e: Weight": ("", '"""A."""', "locality='row', min_models=0", "it takes 0 to None models"),
}  # fmt: skip


@pytest.mark.parametrize("signature", WRONG)
def test_wrong_declarations_say_how(signature, tmp_path):
    late, body, terms, message = WRONG[signature]
    head = "from __future__ import annotations\n" if late else ""
    (tmp_path / "wrong.py").write_text(
        f'{head}from plait.methods import *\n@method(paper="x", {terms})\ndef wrong({signature}):\n    {body}\n'
    )
    with pytest.raises(MethodError, match=rf"wrong\.py:\d+: .*{message}"):
        load_methods([str(tmp_path / "wrong.py")])
    assert "wrong" not in method_names()


def test_a_paper_is_required(tmp_path):
    for terms, message in (('paper="", ', "wrong has no paper"), ("", "TypeError: .* 'paper'")):
        (tmp_path / "wrong.py").write_text(
            f'from plait.methods import *\n@method({terms}locality="row")\ndef wrong(deltas: Deltas):\n    """A."""\n'
        )
        with pytest.raises(MethodError, match=message):
            load_methods([str(tmp_path / "wrong.py")])


def test_a_variant_is_for_parameters_that_are_there(tmp_path):
    (tmp_path / "wrong.py").write_text(
        'from plait.methods import *\n@method(paper="x", locality="element")\ndef mine(deltas: Deltas):\n    """A."""\n'
        '@mine.when(locality="row", speed=1)\ndef other(deltas: Deltas):\n    """B."""\n'
    )
    with pytest.raises(MethodError, match="mine has no parameter 'speed' to have a variant for"):
        load_methods([str(tmp_path / "wrong.py")])
