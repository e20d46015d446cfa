"""Dicts of arrays are merged as files are, bit for bit; torch tensors keep their gradients."""

from __future__ import annotations

import numpy as np
import pytest

import plait
from plait.methods import find_method, method_names


@pytest.fixture
def arguments(recipe):
    """How `plait.merge_tensors` is called for one of the methods of the recipes."""

    def made(name: str, load):
        import yaml

        document = yaml.safe_load(recipe(name).read_text())
        method, base = document["merge_method"], document.get("base_model")
        entries = [entry for entry in document["models"] if entry["model"] != base]
        each = {key: [entry["parameters"][key] for entry in entries] for key in entries[0]["parameters"]}
        models = [load(entry["model"]) for entry in entries]
        return (models, method), {"base": load(base) if base else None, **document["parameters"], **each}

    return made


@pytest.mark.kinds("BF16", "F16", "F32", "F64", "F8_E4M3")
def test_numpy_as_files(kind, method, models, recipe, arguments, tmp_path, weights, small):
    models(kind)
    plait.merge(recipe(method), tmp_path / "out", seed=7)
    positional, named = arguments(method, lambda name: plait.load(tmp_path / name))
    merged = plait.merge_tensors(*positional, seed=7, **named)
    assert {name: array.tobytes() for name, array in merged.items()} == weights(tmp_path / "out")
    assert {array.dtype for array in merged.values()} == {array.dtype for array in plait.load(tmp_path / "a").values()}


@pytest.mark.kinds("F32", "BF16", "F64")
def test_torch_as_files(kind, method, models, recipe, arguments, tmp_path, weights, small):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    models(kind)
    plait.merge(recipe(method), tmp_path / "out")
    positional, named = arguments(method, lambda name: load_file(tmp_path / name / "model.safetensors"))
    merged = plait.merge_tensors(*positional, **named)
    raw = {name: tensor.reshape(-1).view(torch.uint8).numpy().tobytes() for name, tensor in merged.items()}
    assert raw == weights(tmp_path / "out")


def test_arguments_are_not_changed(method, models, arguments, tmp_path):
    models("F32")
    loaded = {name: plait.load(tmp_path / name) for name in ("base", "a", "b")}
    positional, named = arguments(method, loaded.__getitem__)
    merged = plait.merge_tensors(*positional, **named)
    for name, arrays in loaded.items():
        for key, array in plait.load(tmp_path / name).items():
            np.testing.assert_array_equal(arrays[key], array)
            assert not np.shares_memory(merged[key], arrays[key])


@pytest.mark.parametrize(("name", "more"), [("linear", {}), ("task_arithmetic", {}), ("ties", {"density": 0.5})])
def test_gradients_reach_the_inputs(name, more):
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    base, a, b = ({"w": torch.randn(5, 7, generator=generator, dtype=torch.float64)} for _ in range(3))
    a["w"].requires_grad_()
    b["w"].requires_grad_()
    given = {} if name == "linear" else {"base": base}
    merged = plait.merge_tensors([a, b], name, weight=[0.7, 0.4], **given, **more)["w"]
    merged.square().sum().backward()
    assert (a["w"].grad != 0).any()
    if name == "ties":
        return  # thresholds and signs are taken as they are: no difference quotient to compare with at a jump
    total = 1.1 if name == "linear" else 1.0
    torch.testing.assert_close(a["w"].grad, 2 * merged.detach() * 0.7 / total)
    torch.testing.assert_close(b["w"].grad, 2 * merged.detach() * 0.4 / total)


def test_what_is_not_a_float_is_the_first_ones():
    a, b = {"ids": np.arange(3), "w": np.ones(2, np.float32)}, {"ids": np.arange(3) + 9, "w": np.zeros(2, np.float32)}
    merged = plait.merge_tensors([a, b], "linear", weight=1)
    assert merged["ids"].tolist() == [0, 1, 2]
    assert merged["w"].tolist() == [0.5, 0.5]


def test_scope_model_ranks_over_all_tensors():
    small, large = np.full(4, 0.1, np.float32), np.full(4, 9.0, np.float32)
    base = {"x": np.zeros(4, np.float32), "y": np.zeros(4, np.float32)}
    kept = plait.merge_tensors([{"x": small, "y": large}], "ties", base=base, weight=1, density=0.5, scope="model")
    assert kept["x"].tolist() == [0, 0, 0, 0]
    assert kept["y"].tolist() == [9, 9, 9, 9]


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,)])
def test_odd_shapes(shape, method, arguments):
    def arrays(seed: int) -> dict:
        return {"w": np.asarray(np.random.default_rng(seed).standard_normal(shape), np.float32)}

    positional, named = arguments(method, lambda name: arrays(["base", "a", "b"].index(name)))
    merged = plait.merge_tensors(*positional, **named)["w"]
    assert (merged.shape, merged.dtype) == (shape, np.float32)


@pytest.mark.parametrize(
    ("count", "name", "given", "message"),
    [
        (2, "tise", {}, "Did you mean 'ties'"),
        (2, "ties", {"weight": 1}, "give `base`"),
        (2, "linear", {"weight": 1, "densty": 1}, "linear has no parameter 'densty'"),
        (2, "linear", {"weight": [1, 2, 3]}, "weight has 3 numbers for 2 models"),
        (2, "linear", {"weight": "much"}, "weight = 'much'; expected a number"),
        (2, "linear", {}, "linear needs weight"),
        (1, "slerp", {"t": 0.5}, "slerp takes 2 to 2 models, not 1"),
    ],
)
def test_what_is_wrong_is_told(count, name, given, message):
    with pytest.raises(plait.PlaitError, match=message):
        plait.merge_tensors([{"w": np.ones(2, np.float32)}] * count, name, **given)


def test_names_and_shapes_must_agree():
    a, b = {"w": np.ones(2, np.float32)}, {"v": np.zeros(2, np.float32)}
    with pytest.raises(plait.PlaitError, match="is not in both the first and number 2"):
        plait.merge_tensors([a, b], "linear", weight=1)
    with pytest.raises(plait.PlaitError, match=r"w: \(2,\) in the first model, \(3,\) in number 2"):
        plait.merge_tensors([a, {"w": np.zeros(3, np.float32)}], "linear", weight=1)


def test_no_method_is_forgotten(every_method):
    assert {name.split(" ")[0] for name in every_method} == set(method_names()) - {"passthrough"}
    for name in method_names():
        for values, _ in find_method(name).variants:
            assert any(
                values.items() <= case["all"].items() for other, case in every_method.items() if other.startswith(name)
            ), f"{name}: {values} is another locality"
