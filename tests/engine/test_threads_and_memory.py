"""Threads, their errors, and the memory that they may hold."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import plait
from plait.engine.device import Cpu
from plait.engine.kept import Kept
from plait.engine.threads import Stopped, run_on_threads
from plait.methods import Array, Deltas, Weights, method
from plait.methods.method import _METHODS
from plait.planning.memory import peak_memory

PEAK = """
import plait, re, sys
plait.merge(sys.argv[1], sys.argv[2], threads=2, memory=64 << 20, verify=False)
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""  # not getrusage: its peak begins with the parent's


@pytest.fixture
def threads_used(monkeypatch):
    """How many threads each call of `run_on_threads` was given."""
    used: list[int] = []

    def spy(items, start, threads, stop):
        used.append(threads)
        run_on_threads(items, start, threads, stop)

    monkeypatch.setattr("plait.engine.work.run_on_threads", spy)
    return used


def test_less_memory_means_fewer_threads(models, recipe, tmp_path, threads_used):
    models(shapes={"model.layers.0.w": (300, 1000)})
    path = recipe("model_stock by row")
    one = peak_memory(plait.plan(path).steps, 1, Cpu())
    for memory in (100 * one, 3 * one, 3 * one - 1, one):
        plait.merge(path, tmp_path / "out", threads=4, memory=memory, overwrite=True, verify=False)
    assert threads_used == [4, 3, 2, 1]


def test_too_little_memory_is_told(models, recipe, tmp_path):
    models(shapes={"model.layers.0.small": (10,), "model.layers.0.w": (300, 1000)})
    with pytest.raises(plait.PlaitError, match=r"model.layers.0.w needs \d+ MiB at once .* --memory 1 MiB .*Raise"):
        plait.merge(recipe("arcee_fusion"), tmp_path / "out", memory=1 << 20)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_too_few(threads, models, recipe, tmp_path):
    models()
    with pytest.raises(plait.PlaitError, match=rf"--threads {threads}: at least one is needed"):
        plait.merge(recipe("linear"), tmp_path / "out", threads=threads)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.parametrize("name", ["linear", "ties"])
def test_memory_does_not_grow_with_the_model(name, write, recipe, tmp_path):
    peaks = []
    for layers in (6, 60):
        shapes = {f"model.layers.{i}.mlp.up_proj.weight": (512, 1024) for i in range(layers)}
        for seed, model in enumerate(("base", "a", "b")):
            write(f"{layers}/{model}", seed, "BF16", shapes=shapes)
        recipe(name, name=f"{layers}/recipe.yml")
        code = [sys.executable, "-c", PEAK, "recipe.yml", "out"]
        done = subprocess.run(code, cwd=tmp_path / str(layers), capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.05 * peaks[0], peaks


def test_what_is_kept_is_given_back_only_whole():
    kept, step = Kept(1000), SimpleNamespace()
    assert kept.room(step, 0, (2, 100)) is None, "no step is being measured"
    kept.begin(step)
    grid = kept.room(step, 0, (2, 100))
    assert kept.find(step, 0, (2, 100)) is grid
    assert kept.find(step, 0, (2, 50)) is None
    assert kept.find(SimpleNamespace(), 0, (2, 100)) is None
    assert kept.room(step, 50, (2, 500)) is None, "there is no room for it"
    kept.begin(step)
    assert kept.find(step, 0, (2, 100)) is None


def test_the_first_error_stops_the_others():
    stop, seen = threading.Event(), []

    def act(item: int) -> None:
        seen.append(item)
        if item == 3:
            raise ZeroDivisionError(item)
        stop.wait(0.01)

    with pytest.raises(ZeroDivisionError, match="3"):
        run_on_threads(range(1000), lambda: act, 3, stop)
    assert len(seen) < 20


def test_what_is_stopped_is_no_error():
    def act(_) -> None:
        raise Stopped

    run_on_threads(range(3), lambda: act, 2, threading.Event())


def test_a_thread_that_cannot_start_stops_the_others(monkeypatch):
    start, started = threading.Thread.start, []

    def fail(self) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", fail)
    stop = threading.Event()
    with pytest.raises(RuntimeError, match="can't start"):
        run_on_threads(range(10**6), lambda: lambda _: stop.wait(0.01), 2, stop)
    assert not started[0].is_alive()


def test_every_item_is_taken_once():
    seen: list[int] = []
    run_on_threads(range(5000), lambda: seen.append, 4, threading.Event())
    assert sorted(seen) == list(range(5000))


@pytest.fixture
def own_method():
    """Enter a method for one test."""
    before = dict(_METHODS)
    yield method
    _METHODS.clear()
    _METHODS.update(before)


@pytest.mark.parametrize("locality", ["element", "row", "matrix"])
def test_what_a_method_raises_is_told_with_its_tensor(locality, own_method, models, recipe, tmp_path):
    @own_method(paper="https://example.org", locality=locality)
    def broken(weights: Weights) -> Array:
        """Fail."""
        return np.linalg.inv(np.zeros((3, 3))) * weights[0]

    models(shapes={"model.layers.0.w": (30, 40)})
    text = "models: [{model: a}, {model: b}]\nmerge_method: broken\n"
    with pytest.raises(plait.MergeError, match=r"^model.layers.0.w: broken failed with LinAlgError: Singular") as error:
        plait.merge(recipe(text), tmp_path / "out")
    assert isinstance(error.value.__cause__, np.linalg.LinAlgError)


def test_a_method_that_returns_another_shape_is_told(own_method, models, recipe, tmp_path):
    @own_method(paper="https://example.org", locality="element")
    def short(deltas: Deltas) -> Array:
        """Lose one."""
        return np.asarray(deltas)[0][..., 1:]

    models(shapes={"model.layers.0.w": (30, 40)})
    text = "models: [{model: a}]\nmerge_method: short\nbase_model: base\n"
    with pytest.raises(plait.MergeError, match=r"^model.layers.0.w: short failed with ValueError"):
        plait.merge(recipe(text), tmp_path / "out")


def test_an_unknown_device_is_told(models, recipe, tmp_path):
    models()
    with pytest.raises(plait.PlaitError, match="--device"):
        plait.merge(recipe("linear"), tmp_path / "out", device="abacus")
    assert not list(tmp_path.glob("out*"))


def test_cores_that_may_not_be_used_are_not(models, recipe, tmp_path, threads_used, monkeypatch):
    models()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    plait.merge(recipe("linear"), tmp_path / "out")
    assert set(threads_used) == {1}
