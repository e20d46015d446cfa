"""Tracing: what a method does with its stack is noted down, or the method is not fused."""

from __future__ import annotations

import ast
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from plait import ops
from plait.ops import Rng, magnitude, trace
from plait.ops.fusing import merge_grid, merging

STACK = np.array([[1, -2, 0.5, 0, 3, -0.25, 1e-3], [-1.5, 2, 0.5, 7, 0, 4, 1e3]], np.float32)


W, V = np.array([[1.0], [2.0]]), np.array([[1.0], [3.0]])
HALF = np.array([0.3], np.float32)
KEYS = np.array([5, 6], np.uint64)


def merged_in_one_call(program) -> bytes:
    out = np.empty(STACK[0].nbytes, np.uint8)
    assert merge_grid(program, STACK.view(np.uint8), "F32", 0, out, has_base=False)
    return out.tobytes()


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
            return np.floor(stack).sum(axis=0)
        except error:
            return ops.weighted_sum(stack, W)

    return run


def in_place(stack):
    kept = ops.trim(stack, W)
    kept *= 2
    return ops.weighted_sum(kept, W)


def swallowing(act):
    """A method that does something to its stack, whatever comes of it, and then looks like one that can be fused."""

    def run(stack):
        with suppress(BaseException):
            act(stack)
        return ops.weighted_sum(stack, W)

    return run


FUSED = {
    "two factors": lambda x: 2.0 * (0.3 * ops.weighted_sum(x, W)),
    "a factor on the stack": lambda x: ops.weighted_sum(2.0 * x, W),
    "an array on the stack": lambda x: ops.weighted_sum(W.astype(np.float32) * x, W),
    "a function of numpy's that is an operator": lambda x: ops.weighted_sum(np.abs(x), W),
    "scaled before trimming": lambda x: ops.weighted_sum(ops.trim(ops.scale(x, W), W), W),
    "scaled twice": lambda x: ops.weighted_sum(ops.scale(ops.scale(x, W), W), W),
    "trimmed twice": lambda x: ops.weighted_sum(ops.trim(ops.trim(x, W), V), W),
    "trimmed and dropped": lambda x: ops.weighted_sum(ops.drop(ops.trim(x, W), W / 2, Rng(KEYS)), W),
    "scaled after merging": lambda x: ops.scale(ops.weighted_sum(x, W), 2.0),
    "signs alone": lambda x: ops.elect(x, W),
    "a product with itself": lambda x: ops.weighted_sum(x, W) * ops.weighted_sum(x, W),
    "votes by other weights": lambda x: ops.agreeing_mean(x, sign_of(x, V), W),
    "votes by changed weights": changing_weights,
    "votes before trimming": lambda x: ops.agreeing_mean(ops.trim(x, W), sign_of(x), W),
    "votes on another trim": lambda x: ops.agreeing_mean(ops.trim(x, W), sign_of(ops.trim(x, V)), W),
    "signs times a number": lambda x: ops.agreeing_sum(x, -1.0 * sign_of(x), W),
    "an entry": lambda x: x[0] - 2 * x[-1],
    "all entries": lambda x: sum(entry * entry for entry in x) / len(x),
    "negated": lambda x: ops.weighted_sum(-x, W),
    "subtracted": lambda x: 1 - ops.weighted_sum(1 - x, W),
    "a truth times a number": lambda x: (x[0] > 1) * x[0] - x[1] * (x[1] < 0),
    "some entries": lambda x: ops.weighted_sum(x[1:], [0.5]) + ops.weighted_sum(x[::-1], W),
    "the median": lambda x: ops.median(ops.stacked([x[0], x[1], x[0] - x[1], 2 * x[0]])) + ops.median(x[:1]),
    "exponentials": lambda x: ops.exp(x[0]) - ops.tanh(x[1]),
    "compared with float64": lambda x: ops.weighted_sum(ops.where(abs(x) < V, x, 0), W),
    "the largest": lambda x: 0.5 * ops.largest(x),
    "where": lambda x: ops.where((x[0] > 0) & ~(x[1] < 1), x[0], 0.25),
    "a number in an array": lambda x: HALF * ops.weighted_sum(x * HALF, W) / HALF,
    "compared with float64 in an array": lambda x: ops.where(x[0] < np.array([0.5]), x[0], 0),
    "scaled by a number in an array": lambda x: ops.scale(ops.scale(x, [0.3])[1], np.array([1 / 3])),
    "a stack of one beside two": lambda x: ops.weighted_sum((x[0][None] > 0) * x, W) - (abs(x) + x[1][None])[0],
    "a stack of one truth": lambda x: ops.where((x[:1] >= np.array([[0.5]]))[0] & (x[0] > 1)[None][0], x[1], 0),
    "numbers per model times one array": lambda x: ops.weighted_sum(W.astype(np.float32) * x[0], V),
    "a list of weights": lambda x: ops.agreeing_mean(x, sign_of(x, [[1], [2]]), W),
}


@pytest.mark.parametrize("run", FUSED.values(), ids=FUSED)
def test_what_is_noted_down_is_what_is_computed(run):
    program = merging(run, 2)
    assert program is not None
    assert merged_in_one_call(program) == run(STACK).tobytes()


NOT_FUSED = {
    "weights per model after the sum": lambda x: W * ops.weighted_sum(x, W),
    "a number of numpy's": lambda x: np.float64(2) * ops.weighted_sum(x, W),
    "a number of numpy's behind": lambda x: ops.weighted_sum(x, W) * np.float64(2),
    "a float32": lambda x: np.float32(2) * ops.weighted_sum(x, W),
    "an array without dimensions": lambda x: np.array(2.0) * ops.weighted_sum(x, W),
    "a sum of sums": lambda x: ops.weighted_sum(ops.weighted_sum(x, W), W),
    "the stack alone": lambda x: x,
    "weights from the stack": lambda x: ops.weighted_sum(x, x),
    "signs that are given": lambda x: ops.agreeing_sum(x, np.ones(3), W),
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
    "written to": swallowing(lambda x: x.__setitem__(0, 1)),
    "an attribute": swallowing(lambda x: setattr(x, "shape", (1,))),
    "a matrix product": swallowing(lambda x: W @ x),
    "a numpy function": swallowing(np.sum),
    "a universal function": swallowing(np.exp),
    "made an array": swallowing(np.asarray),
    "a magnitude op": swallowing(magnitude.magnitude_bits),
    "its blocks": swallowing(ops.gram_blocks),
    "its class": swallowing(lambda x: x.__class__),
    "a float": swallowing(float),
    "a torch tensor": swallowing(lambda x: x.detach()),
    "a sum of signs": lambda x: ops.weighted_sum(ops.elect(x, W), W),
    "an entry that is not there": lambda x: x[2],
    "a stack": lambda x: 2 * x,
    "a truth": lambda x: x[0] > x[1],
    "a sum of truths": lambda x: (x[0] > 1) + (x[1] > 1),
    "compared with more than float32": lambda x: ops.weighted_sum(ops.where(abs(x) < V / 10, x, 0), W),
    "an array of float64": lambda x: ops.weighted_sum(W * x, W),
    "a number in an array of float64": lambda x: np.array([0.5]) * x[0],
    "compared with more than float32 in an array": lambda x: ops.where(x[0] < np.array([0.1]), x[0], 0),
    "an axis before a stack": lambda x: ops.weighted_sum(x[None][0], W),
    "numbers along the entries": lambda x: ops.weighted_sum(x[:, :2] * np.ones(2, np.float32), W),
    "numbers without a model each": lambda x: ops.weighted_sum(x + np.ones(7, np.float32), W),
    "a truth times two": lambda x: 2 * (x[0] > 1) * x[0],
    "a truth times a truth": lambda x: ((x[0] > 1) * (x[1] > 1)) * x[0],
    "not a number": lambda x: ~x[0],
    "a cube": lambda x: x[0] ** 3,
    "a truth and a number": lambda x: (x[0] > 0) & True,
    "the length of an entry": swallowing(lambda x: len(x[0])),
    "an op that is not fused": swallowing(ops.ranks),
    "two stacks of different lengths": lambda x: ops.weighted_sum(x, W) + ops.stacked([x[0], x[1], x[0]])[0] * x,
}


@pytest.mark.parametrize("run", NOT_FUSED.values(), ids=NOT_FUSED)
def test_nothing_else_is_fused(run):
    assert merging(run, 2) is None


def test_numbers_are_those_at_the_time_of_the_call():
    weight = W.copy()

    def run(stack):
        total = ops.weighted_sum(stack, weight)
        weight[:] = 9
        return total

    assert merging(run, 2).numbers.tolist() == [1, 2]


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
