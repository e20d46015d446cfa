"""Experts matched before they are merged."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import plait
from plait.checkpoint.experts import matching
from plait.checkpoint.experts.assignment import assign
from plait.errors import RecipeError

WAYS = ["weights", "router"]


def shuffled(folder, out, seed=3, groups=1):
    """Write a model with the experts of each layer in another order, and its router's rows likewise; return the orders."""
    arrays = load_file(folder / "model.safetensors")
    rng = np.random.default_rng(seed)
    found, orders = dict(arrays), {}
    for name in sorted(arrays):
        stem, mark, last = name.rpartition(".experts.")
        at = stem if mark else name.rpartition(".gate.")[0] or name.rpartition(".router.")[0]
        if not at or "shared" in name:
            continue
        count = arrays[next(n for n in (f"{at}.gate.weight", f"{at}.router.weight") if n in arrays)].shape[0]
        if at not in orders:
            size = count // groups
            inner = [g * size + rng.permutation(size) for g in rng.permutation(groups)]
            orders[at] = np.concatenate(inner)
        number, _, rest = last.partition(".")
        if mark and number.isdigit():
            found[name] = arrays[f"{stem}.experts.{orders[at][int(number)]}.{rest}"]
        else:
            found[name] = arrays[name][orders[at]].copy()
    out.mkdir()
    save_file(found, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_bytes((folder / "config.json").read_bytes())
    return orders


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layouts", ["each each", "stacked stacked", "each stacked", "stacked each"])
@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "gpt_oss"])
def test_a_merge_with_a_shuffled_copy_gives_the_base_byte_for_byte(made, recipe, tmp_path, name, layouts, way):
    base, other = layouts.split()
    family = made(name, "bfloat16")
    a = family.folders["a", base]
    orders = shuffled(family.folders["a", other], tmp_path / "b", groups=2 if name == "deepseek_v3" else 1)
    assert any((np.diff(order) != 1).any() for order in orders.values())
    text = f"{{merge_method: linear, base_model: {a}, models: [{{model: {a}}}, {{model: {tmp_path / 'b'}}}], "
    path = recipe(text + f"parameters: {{weight: 0.5}}, experts: {{match: {way}}}}}")
    told = [note for note in plait.plan(path).notes if note.startswith("experts:")]
    assert len(told) == 1
    assert f"most like by {way}" in told[0]
    assert ("2 groups" in told[0]) == (name == "deepseek_v3")
    plait.merge(path, tmp_path / "out", threads=2)
    found, wanted = load_file(tmp_path / "out" / "model.safetensors"), load_file(a / "model.safetensors")
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        assert array.tobytes() == found[key].tobytes(), key
    lock = json.loads((tmp_path / "out" / "plait.lock").read_text())
    block = "block_sparse_moe" if name == "mixtral" and base == "each" else "mlp"
    assert lock["experts"] == {
        f"./b: {at.rpartition('.')[0]}.{block}": " ".join(str(e) for e in np.argsort(order))
        for at, order in orders.items()
    }
    plait.merge(tmp_path / "out" / "plait.lock", tmp_path / "again", threads=1)
    assert json.loads((tmp_path / "again" / "plait.lock").read_text())["inputs"] == lock["inputs"]
    assert "in another's place" in (tmp_path / "out" / "README.md").read_text()


def test_matching_is_the_same_in_small_pieces(made, recipe, tmp_path, monkeypatch):
    """With experts that are read whole (transposed ones) and ones that are not, a few at a time."""
    family = made("gpt_oss", "bfloat16")
    a, b = family.folders["a", "stacked"], family.folders["b", "stacked"]
    shuffled(family.folders["b", "each"], tmp_path / "b")
    text = f"merge_method: linear, base_model: {a}, parameters: {{weight: 1}}, models"
    path = recipe(f"{{{text}: [{{model: {tmp_path / 'b'}}}], experts: {{match: weights}}}}")
    plait.merge(path, tmp_path / "out")
    monkeypatch.setattr(matching, "_HELD", 1)
    monkeypatch.setattr(matching, "_AT_ONCE", 4 * 8 * 77)
    plait.merge(path, tmp_path / "again")
    plait.merge(recipe(f"{{{text}: [{{model: {b}}}]}}"), tmp_path / "unshuffled")
    one, two, wanted = (tmp_path / out / "model.safetensors" for out in ("out", "again", "unshuffled"))
    assert one.read_bytes() == two.read_bytes() == wanted.read_bytes()


def test_groups_of_experts_stay_whole(made, recipe, tmp_path):
    """Routing chooses groups before experts, so a copy with experts of both groups mixed is another model."""
    a = made("deepseek_v3").folders["a", "each"]
    (mixed,) = shuffled(a, tmp_path / "b").values()
    assert len({e // 4 for e in mixed[:4]}) == 2
    models = f"models: [{{model: {a}}}, {{model: {tmp_path / 'b'}}}]"
    linear = f"merge_method: linear, base_model: {a}, parameters: {{weight: 0.5}}, experts: {{match: weights}}"
    plait.merge(recipe(f"{{{linear}, {models}}}"), tmp_path / "out")
    (order,) = json.loads((tmp_path / "out" / "plait.lock").read_text())["experts"].values()
    found = [int(e) // 4 for e in order.split()]
    assert len(set(found[:4])) == len(set(found[4:])) == 1


def test_equal_experts_are_told_apart_by_the_router_and_else_stay(made, recipe, tmp_path):
    """As in a model that was made of one dense model's layers: all experts alike, routers not."""
    family = made("qwen3_moe")
    arrays = load_file(family.folders["a", "stacked"] / "model.safetensors")
    alike = {n: np.repeat(v[:1], 4, axis=0) if ".experts." in n else v for n, v in arrays.items()}
    for name in ("base", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes((family.folders["a", "stacked"] / "config.json").read_bytes())
    order = [2, 0, 3, 1]
    rows = {n: v[order].copy() if ".gate.w" in n else v for n, v in alike.items()}
    same = {n: np.repeat(v[:1], 4, axis=0) if ".gate.w" in n else v for n, v in alike.items()}
    for name, found in (("base", alike), ("b", rows), ("c", same)):
        save_file(found, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    models = ", ".join(f"{{model: {tmp_path / name}}}" for name in "bc")
    path = recipe(
        f"{{merge_method: linear, base_model: {tmp_path / 'base'}, models: [{models}], parameters: {{weight: 1}}, experts: {{match: weights}}}}"
    )
    plait.merge(path, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "plait.lock").read_text())["experts"]
    assert found["./b: model.layers.0.mlp"] == " ".join(str(e) for e in np.argsort(order))
    assert found["./c: model.layers.1.mlp"] == "0 1 2 3"


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 4), st.randoms(use_true_random=False))
def test_the_assignment_is_the_best_of_all(groups, size, highest, random):
    """Held against trying every permutation that keeps groups whole: first level, second, then staying put."""
    count = groups * size
    levels = [np.array([[float(random.randrange(highest)) for _ in range(count)] for _ in range(count)]) for _ in "ab"]
    rows = np.arange(count)

    def value(order):
        return tuple(level[rows, list(order)].sum() for level in (*levels, np.eye(count)))

    possible = [
        tuple(g * size + e for g, inner in zip(outer, ways, strict=True) for e in inner)
        for outer in itertools.permutations(range(groups))
        for ways in itertools.product(itertools.permutations(range(size)), repeat=groups)
    ]
    assert value(assign(levels, groups)) == max(value(order) for order in possible)
    assert tuple(assign(levels, groups)) in set(possible)


def test_rounding_decides_nothing():
    level = np.ones((3, 3)) + np.random.default_rng(0).uniform(-1e-13, 1e-13, (3, 3))
    assert assign([level]).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("written", "line", "text"),
    [
        ("experts: weights", 5, "'experts' must be a mapping, not `weights`. Write `experts: {match: weights}`."),
        ("experts: {mach: weights}", 5, "'experts' has no key 'mach'. Did you mean 'match'?"),
        ("experts: {}", 5, "'experts' needs 'match'."),
        (
            "experts: {match: wieghts}",
            5,
            "'match' has no way `wieghts`. Did you mean 'weights'? Choose from: weights, router.",
        ),
        ("experts:\n  match: 3", 6, "'match' has no way `3`."),
        ("expert: {match: router}", 5, "Did you mean 'experts'?"),
    ],
)
def test_faults_of_the_recipe(recipe, written, line, text):
    with pytest.raises(RecipeError) as raised:
        plait.plan(recipe(f"models:\n  - model: a/a\n  - model: b/b\nmerge_method: linear\n{written}\n"))
    assert f"recipe.yml:{line}: " in str(raised.value)
    assert text in str(raised.value)


def refused(path, text):
    with pytest.raises(RecipeError) as raised:
        plait.plan(path)
    assert text in str(raised.value)


def test_what_cannot_be_matched_is_refused(made, recipe, tmp_path, write_llama):
    family = made("qwen3_moe")
    a, b = family.folders["a", "each"], family.folders["b", "each"]
    end = f"experts: {{match: weights}}, base_model: {a}"
    parts = f"{{sources: [{{model: {a}, layer_range: [0, 1]}}, {{model: {b}, layer_range: [1, 2]}}]}}"
    refused(
        recipe(f"{{merge_method: linear, parameters: {{weight: 1}}, slices: [{parts}], {end}}}"),
        "Write `models`, not `slices`.",
    )
    linear = "merge_method: linear, parameters: {weight: 1}, experts: {match: router}"
    one, two = write_llama("one", 1), write_llama("two", 2)
    refused(
        recipe(f"{{{linear}, models: [{{model: {one}}}, {{model: {two}}}]}}"),
        f"experts: {one} has none that plait knows",
    )
    for name, change, text in (
        (
            "no_router",
            lambda arrays: {n: v for n, v in arrays.items() if ".gate.w" not in n},
            "no router is beside them",
        ),
        (
            "numbers",
            lambda arrays: arrays | {"model.layers.0.mlp.gate.tid2eid": np.zeros((32, 2), np.int64)},
            "model.layers.0.mlp.gate.tid2eid may tell experts by their numbers",
        ),
    ):
        (tmp_path / name).mkdir()
        save_file(change(load_file(a / "model.safetensors")), tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_bytes((a / "config.json").read_bytes())
        models = f"models: [{{model: {tmp_path / name}}}, {{model: {b}}}]"
        refused(recipe(f"{{{linear}, {models}}}"), text)
    other = made("deepseek_v3").folders["a", "each"]
    (tmp_path / "ungrouped").mkdir()
    config = json.loads((other / "config.json").read_text()) | {"n_group": 1}
    (tmp_path / "ungrouped" / "config.json").write_text(json.dumps(config))
    (tmp_path / "ungrouped" / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    models = f"models: [{{model: {other}}}, {{model: {tmp_path / 'ungrouped'}}}]"
    refused(recipe(f"{{{linear}, {models}}}"), f"{other} has 2 groups of experts, {tmp_path / 'ungrouped'} 1")
