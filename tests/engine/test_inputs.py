"""Inputs as they come: not finite, cut short, of odd shapes, not floats; and what is said of them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import plait
from plait.checkpoint.io import FileReader

UP = "model.layers.1.mlp.up_proj.weight"


def spoil(value: float, name: str = UP):
    def change(arrays) -> None:
        arrays[name].reshape(-1)[-1] = value

    return change


@pytest.fixture
def one_bad(write, small):
    """Three models of which one has a value that is not finite, in the last entry of a tensor."""

    def made(bad: str, value: float, kind: str = "BF16", name: str = UP) -> None:
        for seed, model in enumerate(("base", "a", "b")):
            write(model, seed, kind, change=spoil(value, name) if model == bad else None)

    return made


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["BF16", "F32", "F64", "F8_E5M2"])
@pytest.mark.parametrize("bad", ["base", "a", "b"])
def test_what_is_not_finite_is_told_by_tensor_and_model(bad, kind, value, one_bad, recipe, tmp_path):
    one_bad(bad, value, kind)
    with pytest.raises(plait.MergeError, match=rf"{UP} of {bad} has NaN or infinity\. .*--allow-nonfinite"):
        plait.merge(recipe("task_arithmetic"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_method_tells(method, one_bad, recipe, tmp_path):
    one_bad("b", np.nan)
    with pytest.raises(plait.MergeError, match=rf"{UP} of b has NaN or infinity"):
        plait.merge(recipe(method), tmp_path / "out")
    assert plait.merge(recipe(method), tmp_path / "out", allow_nonfinite=True).path.exists()


def test_copied_tensors_are_checked_too(one_bad, recipe, tmp_path, weights):
    one_bad("a", np.inf)
    path = recipe("models: [{model: a}]\nmerge_method: passthrough\n")
    with pytest.raises(plait.MergeError, match=rf"{UP} of a has NaN or infinity"):
        plait.merge(path, tmp_path / "out")
    plait.merge(path, tmp_path / "out", allow_nonfinite=True)
    assert weights(tmp_path / "out") == weights(tmp_path / "a")


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_what_is_allowed_is_written_as_it_is(one_bad, recipe, tmp_path):
    one_bad("a", np.nan, "F32")
    plait.merge(recipe("linear"), tmp_path / "out", allow_nonfinite=True)
    merged = plait.load(tmp_path / "out")
    assert np.isnan(merged[UP].reshape(-1)[-1])
    assert sum(np.isnan(array).sum() for array in merged.values()) == 1


def test_what_was_allowed_once_is_not_taken_over_by_a_stricter_run(one_bad, recipe, tmp_path):
    one_bad("a", np.nan, name="lm_head.weight")
    path = recipe("linear")

    def halt(event) -> None:
        if event.kind == "verify":
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        plait.merge(path, tmp_path / "out", allow_nonfinite=True, on_event=halt)
    with pytest.raises(plait.MergeError, match=r"lm_head.weight of a has NaN"):
        plait.merge(path, tmp_path / "out")
    kinds: list[str] = []
    plait.merge(path, tmp_path / "out", allow_nonfinite=True, on_event=lambda event: kinds.append(event.kind))
    assert kinds[0] == "resume", "what a strict run has made is good enough for a lenient one"


def test_weights_that_cancel(models, recipe, tmp_path):
    models()
    text = "models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: -1}}]\nmerge_method: linear\n"
    with pytest.raises((plait.MergeError, plait.RecipeError)) as error:
        plait.merge(recipe(text), tmp_path / "out")
    if isinstance(error.value, plait.MergeError):
        assert ": linear of a, b made NaN or infinity in float32. Check its weights" in str(error.value)
        plait.merge(recipe(text), tmp_path / "out", allow_nonfinite=True)
    assert plait.merge(recipe(text, name="sum.yml", parameters={"normalize": False}), tmp_path / "sum").path.exists()


@pytest.mark.parametrize("out_dtype", ["float16", "float8_e4m3fn"])
def test_overflow_at_the_end(out_dtype, write, recipe, tmp_path):
    for seed, name in enumerate(("base", "a", "b")):
        write(name, seed, change=spoil(1e5))
    path = recipe("linear", out_dtype=out_dtype)
    with pytest.raises(plait.MergeError, match=rf"^{UP}: linear of a, b made NaN or infinity in {out_dtype}\. "):
        plait.merge(path, tmp_path / "out")
    plait.merge(path, tmp_path / "out", allow_nonfinite=True)


def test_an_input_that_shrinks_after_planning(models, recipe, tmp_path, small):
    models("BF16")
    path = recipe("linear")
    planned = plait.plan(path)
    file = tmp_path / "b" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(plait.CheckpointError, match=r"b/model.safetensors: truncated while reading"):
        plait.merge(path, tmp_path / "out", planned=planned)
    assert not (tmp_path / "out").exists()
    file.write_bytes(whole)
    plait.merge(path, tmp_path / "out")


def test_an_input_that_is_gone_after_planning(models, recipe, tmp_path):
    models()
    path = recipe("linear")
    planned = plait.plan(path)
    (tmp_path / "b" / "model.safetensors").unlink()
    with pytest.raises(plait.CheckpointError, match=r"b/model.safetensors: cannot be read: No such file"):
        plait.merge(path, tmp_path / "out", planned=planned)
    assert not list(tmp_path.glob("out*"))


def test_an_input_that_cannot_be_read(models, recipe, tmp_path, monkeypatch):
    models()
    path = recipe("linear")
    planned = plait.plan(path)
    monkeypatch.setattr(os, "preadv", lambda *_: (_ for _ in ()).throw(OSError(5, os.strerror(5))))
    with pytest.raises(plait.CheckpointError, match=r"model.safetensors: cannot be read: Input/output error"):
        plait.merge(path, tmp_path / "out", planned=planned)


def add(**more: np.ndarray):
    return lambda arrays: arrays.update({name.replace("__", "."): array for name, array in more.items()})


@pytest.mark.parametrize("same", [True, False])
def test_integer_buffers(same, write, recipe, tmp_path, small):
    for seed, name in enumerate(("base", "a", "b")):
        write(name, seed, change=add(x__ids=np.arange(9000) + (0 if same else seed), x__on=np.array([True, False])))
    result = plait.merge(recipe("linear"), tmp_path / "out")
    first = plait.load(tmp_path / "a")
    np.testing.assert_array_equal(plait.load(tmp_path / "out")["x.ids"], first["x.ids"])
    told = [text for text in result.warnings if "not a float" in text]
    expected = "1 tensor that is not a float differs between the inputs; the first model's is kept: x.ids."
    assert told == ([] if same else [expected])
    assert result.hashes.keys() >= {"a: x.ids", "b: x.ids", "a: x.on"}


ODD = {
    "model.layers.0.scalar": (),
    "model.layers.0.one": (1,),
    "model.layers.0.none": (0,),
    "model.layers.0.no_rows": (0, 7),
    "model.layers.0.no_columns": (7, 0),
    "model.layers.0.prime": (8209,),
    "model.layers.0.thin": (8209, 1),
    "model.layers.0.flat": (1, 8209),
    "model.layers.0.cube": (3, 5, 7),
    "model.layers.0.kernel": (13, 3, 3, 71),
}


@pytest.mark.kinds("BF16", "F64")
@pytest.mark.filterwarnings("error")
def test_odd_shapes(kind, method, models, recipe, merged, tmp_path, small):
    models(kind, shapes=ODD)
    path = recipe(method)
    assert merged(path, threads=1) == merged(path, threads=3)
    shapes = {name: array.shape for name, array in plait.load(tmp_path / "kept0").items()}
    assert shapes == ODD


def test_a_model_that_is_the_base_is_told(method, write, recipe, tmp_path, small):
    for seed, name in ((0, "base"), (1, "a"), (0, "b")):
        write(name, seed, change=add(x__ids=np.arange(3)))
    result = plait.merge(recipe(method), tmp_path / "out")
    told = [text for text in result.warnings if "changed nothing" in text]
    based = "base_model: base" in Path(tmp_path / "recipe.yml").read_text()
    assert told == (["b is byte for byte the base wherever it is merged, so it changed nothing."] if based else [])


def test_hashes_are_taken_while_reading(models, recipe, tmp_path, monkeypatch, small):
    """Every byte of an input of an element-wise merge is read once, and no more."""
    models("BF16")
    read: list[int] = []
    into = FileReader.read_into

    def spy(self, file, offset, buffer):
        if Path(file).parent.name in "ab":
            read.append(buffer.nbytes)
        into(self, file, offset, buffer)

    monkeypatch.setattr(FileReader, "read_into", spy)
    result = plait.merge(recipe("linear"), tmp_path / "out")
    assert sum(read) == 2 * sum(step.nbytes for step in result.plan.steps)
    assert len(result.hashes) == 2 * len(result.plan.steps)
