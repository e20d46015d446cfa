"""Tracing: a method becomes a pipeline when it is one, and only then."""

from __future__ import annotations

import ast
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from plait import ops
from plait.methods import find_method, method_names
from plait.ops import Rng, magnitude, trace
from plait.ops.pipeline import merge_grid, pipeline_of, selection_of

STACK = np.array([[1, -2, 0.5, 0, 3, -0.25, 1e-3], [-1.5, 2, 0.5, 7, 0, 4, 1e3]], np.float32)


def merged_in_one_call(pipeline) -> bytes:
    out = np.empty(STACK[0].nbytes, np.uint8)
    merge_grid(pipeline, STACK.view(np.uint8), "F32", 0, out, has_base=False)
    return out.tobytes()


W, V = np.array([[1.0], [2.0]]), np.array([[1.0], [3.0]])
KEYS = np.array([5, 6], np.uint64)


def arguments(name: str, **values) -> dict:
    """All keywords of a method, as the engine gives them for two models."""
    method = find_method(name)
    known = {key: np.full((2, 1), method.defaults.get(key, 1.0)) for key, p in method.parameters.items() if p.per_model}
    known |= {key: method.defaults[key] for key in method.parameters if key not in known}
    known |= dict.fromkeys(method.measured, V)
    known |= {method.random: Rng(KEYS)} if method.random else {}
    return known | values


@pytest.mark.parametrize(
    ("name", "values", "select", "way"),
    [
        ("linear", {"weight": W}, 0, 0),
        ("passthrough", {"scale": W}, 0, 0),
        ("task_arithmetic", {"weight": W, "scale": 0.3}, 0, 0),
        ("ties", {"weight": W, "density": W / 2}, 1, 2),
        ("ties", {"weight": W, "density": W / 2, "normalize": False, "rescale": "l1", "scale": 0.3}, 1, 1),
        ("dare_linear", {"weight": W, "density": W / 2}, 2, 0),
        ("dare_linear", {"weight": W, "density": W / 2, "rescale": "probability"}, 2, 0),
        ("dare_ties", {"weight": W, "density": W / 2}, 2, 1),
        ("dare_ties", {"weight": W, "density": W / 2, "normalize": True, "scale": 2}, 2, 2),
    ],
)
def test_methods_that_are_pipelines(name, values, select, way):
    known = arguments(name, **values)
    pipeline = pipeline_of(lambda stack: find_method(name).run(stack, **known), 2)
    assert pipeline is not None
    assert (pipeline.select, pipeline.way) == (select, way)
    rescaled = "rescale" in known and known["rescale"] != "none"
    assert pipeline.factor.size == (2 if rescaled else 0)
    # ...and they give what the methods give
    assert merged_in_one_call(pipeline) == find_method(name).run(STACK, **known).tobytes()


@pytest.mark.parametrize("name", ["magmax", "arcee_fusion"])
def test_methods_that_are_none(name):
    known = arguments(name)
    assert pipeline_of(lambda stack: find_method(name).run(stack, **known), 2) is None


@pytest.mark.parametrize("name", method_names(post=True))
def test_post_steps_are_none(name):
    run = find_method(name, post=True).run
    assert pipeline_of(lambda stack: run(ops.weighted_sum(stack, W), value=2.0), 2) is None


def sign_of(stack, weight=W):
    return ops.elect(stack, weight)


def changing_weights(stack):
    weight = W.copy()
    sign = ops.elect(stack, weight)
    weight *= -3
    return ops.agreeing_mean(stack, sign, weight)


def branching(stack):
    total = ops.weighted_sum(stack, W)
    return total if total[0] > 0 else -total


def hiding(error):
    def run(stack):
        try:
            return np.abs(stack).sum(axis=0)
        except error:
            return ops.weighted_sum(stack, W)

    return run


def in_place(stack):
    kept = ops.trim(stack, W)
    kept *= 2
    return ops.weighted_sum(kept, W)


def swallowing(act):
    """A method that does something to its stack, whatever comes of it, and then looks like a pipeline."""

    def run(stack):
        with suppress(BaseException):
            act(stack)
        return ops.weighted_sum(stack, W)

    return run


NOT_PIPELINES = {
    "weights per model after the sum": lambda x: W * ops.weighted_sum(x, W),
    "a number of numpy's": lambda x: np.float64(2) * ops.weighted_sum(x, W),
    "a number of numpy's behind": lambda x: ops.weighted_sum(x, W) * np.float64(2),
    "a float32": lambda x: np.float32(2) * ops.weighted_sum(x, W),
    "an array without dimensions": lambda x: np.array(2.0) * ops.weighted_sum(x, W),
    "two factors": lambda x: 2.0 * (0.3 * ops.weighted_sum(x, W)),
    "a factor on the stack": lambda x: ops.weighted_sum(2.0 * x, W),
    "an array on the stack": lambda x: ops.weighted_sum(W * x, W),
    "scaled before trimming": lambda x: ops.weighted_sum(ops.trim(ops.scale(x, W), W), W),
    "scaled twice": lambda x: ops.weighted_sum(ops.scale(ops.scale(x, W), W), W),
    "trimmed twice": lambda x: ops.weighted_sum(ops.trim(ops.trim(x, W), V), W),
    "trimmed and dropped": lambda x: ops.weighted_sum(ops.drop(ops.trim(x, W), W / 2, Rng(KEYS)), W),
    "scaled after merging": lambda x: ops.scale(ops.weighted_sum(x, W), 2.0),
    "a sum of sums": lambda x: ops.weighted_sum(ops.weighted_sum(x, W), W),
    "a sum of signs": lambda x: ops.weighted_sum(ops.elect(x, W), W),
    "signs alone": lambda x: ops.elect(x, W),
    "the stack alone": lambda x: x,
    "a product with itself": lambda x: ops.weighted_sum(x, W) * ops.weighted_sum(x, W),
    "weights from the stack": lambda x: ops.weighted_sum(x, x),
    "votes by other weights": lambda x: ops.agreeing_mean(x, sign_of(x, V), W),
    "votes by changed weights": changing_weights,
    "votes before trimming": lambda x: ops.agreeing_mean(ops.trim(x, W), sign_of(x), W),
    "votes on another trim": lambda x: ops.agreeing_mean(ops.trim(x, W), sign_of(ops.trim(x, V)), W),
    "signs that are given": lambda x: ops.agreeing_sum(x, np.ones(3), W),
    "signs times a number": lambda x: ops.agreeing_sum(x, -1.0 * sign_of(x), W),
    "the wrong number of weights": lambda x: ops.weighted_sum(x, np.ones((3, 1))),
    "one weight for two models": lambda x: ops.weighted_sum(x, 1.0),
    "one threshold for two models": lambda x: ops.weighted_sum(ops.trim(x, 1.0), W),
    "a generator for other models": lambda x: ops.weighted_sum(ops.drop(x, W / 2, Rng(KEYS[:1])), W),
    "a generator somewhere else": lambda x: ops.weighted_sum(ops.drop(x, W / 2, Rng(KEYS).at(5)), W),
    "a density that is none": lambda x: ops.weighted_sum(ops.drop(x, W, Rng(KEYS)), W),
    "nothing": lambda _: None,
    "branching": branching,
    "in place": in_place,
    "numpy for numpy, ops for torch": lambda x: x.sum(0) if isinstance(x, np.ndarray) else ops.weighted_sum(x, W),
    "has it a shape": lambda x: x.sum(0) if hasattr(x, "shape") else ops.weighted_sum(x, W),
    "is it like an array": lambda x: x.sum(0) if hasattr(x, "__array__") else ops.weighted_sum(x, W),
    "compared": lambda x: ops.weighted_sum(x, W if x == 0 else V),
    "true or not": lambda x: ops.weighted_sum(x, W if x else V),
    "catching Exception": hiding(Exception),
    "catching TypeError": hiding(TypeError),
    "catching AttributeError": hiding(AttributeError),
    "a bug": lambda x: ops.weighted_sum(x, W / nothing_of_that_name),  # noqa: F821
    "length": swallowing(len),
    "iteration": swallowing(list),
    "an entry": swallowing(lambda x: x[0]),
    "written to": swallowing(lambda x: x.__setitem__(0, 1)),
    "an attribute": swallowing(lambda x: setattr(x, "shape", (1,))),
    "negated": swallowing(lambda x: -x),
    "subtracted": swallowing(lambda x: 1 - x),
    "a matrix product": swallowing(lambda x: W @ x),
    "a numpy function": swallowing(np.sum),
    "a universal function": swallowing(np.exp),
    "made an array": swallowing(np.asarray),
    "another op": swallowing(ops.largest),
    "a magnitude op": swallowing(magnitude.magnitude_bits),
    "its blocks": swallowing(ops.gram_blocks),
    "its class": swallowing(lambda x: x.__class__),
    "a float": swallowing(float),
    "a torch tensor": swallowing(lambda x: x.detach()),
}


@pytest.mark.parametrize("run", NOT_PIPELINES.values(), ids=NOT_PIPELINES)
def test_nothing_else_is_matched(run):
    assert pipeline_of(run, 2) is None


def test_what_looks_another_way_but_is_the_same_is_matched():
    for run in (
        lambda x: ops.agreeing_mean(x, sign_of(x, W.copy()), W),
        lambda x: ops.agreeing_mean(x, sign_of(x, [[1], [2]]), W),
        lambda x: 3 * ops.weighted_sum(x, W),
        lambda x: ops.weighted_sum(x, W) * 0.5,
        lambda x: ops.weighted_sum(ops.scale(x, 2.0), W),
        lambda x: ops.weighted_sum(ops.drop(x, W / 2, Rng(KEYS ^ np.uint64(1))), W),
    ):
        pipeline = pipeline_of(run, 2)
        assert pipeline is not None
        assert merged_in_one_call(pipeline) == run(STACK).tobytes()


def test_numbers_are_those_at_the_time_of_the_call():
    weight = W.copy()

    def run(stack):
        total = ops.weighted_sum(stack, weight)
        weight[:] = 9
        return total

    assert pipeline_of(run, 2).weight.tolist() == [1, 2]


def test_selections():
    rng = Rng(KEYS).at(4096)
    assert selection_of(lambda x: ops.trim(x, W), 2).select == 1
    assert selection_of(lambda x: ops.drop(x, W / 2, rng), 2, 4096).select == 2
    for keep in (
        lambda x: ops.scale(ops.trim(x, W), 2.0),  # more than a selection
        lambda x: ops.scale(x, 2.0),
        lambda x: ops.drop(x, W / 2, rng),  # at another element
        lambda x: ops.trim(ops.trim(x, W), V),
        lambda x: 2.0 * x,
        lambda x: ops.weighted_sum(x, W),
        lambda x: np.where(x > 0, x, 0),
        lambda _: np.ones(3),
    ):
        assert selection_of(keep, 2) is None


def test_every_op_is_noted_or_refused():
    """An op that tracing does not know would raise AttributeError, which a method may mean to catch."""
    called = set()
    for name in ("plait.ops", "plait.ops.codec", "plait.ops.magnitude"):
        tree = ast.parse(Path(import_module(name).__file__).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call):
                called |= {node.attr} if getattr(node.value.func, "id", "") == "side" else set()
    assert "weighted_sum" in called
    assert "window_count" in called
    assert not [name for name in called if not hasattr(trace, name)]
    assert repr(trace.Traced()) == "<traced input>"
