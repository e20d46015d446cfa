"""Rank-wise clustering, held against a case worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from plait.adapters.merging.clusters import cluster, grouped
from plait.errors import MergeError, RecipeError


def recipe(weights, count, **more):
    models = [{"model": name, "parameters": {"weight": weight}} for name, weight in weights.items()]
    return {"models": models, "merge_method": "linear", "adapter": {"clusters": count}, **more}


def test_golden():
    """Two adapters of rank 2, two groups, by hand.

    Units [a; b]: (4, 0, 0), (0, 2, 2) and (2, 0, 2), (0, 4, 0). The first of each pair are near each other: squared
    distance 8 against 20, 28, 32 and more. With weights 1 and 3 the means are (1 * (4, 0, 0) + 3 * (2, 0, 2)) / 4 =
    (2.5, 0, 1.5) and (1 * (0, 2, 2) + 3 * (0, 4, 0)) / 4 = (0, 3.5, 0.5). Their largest magnitudes are 2.5 and 3.5; those
    of the members average (1 * 4 + 3 * 2) / 4 = 2.5 and (1 * 2 + 3 * 4) / 4 = 3.5: no change. With weights alike they are
    (3, 0, 1) of 3, members' 3, and (0, 3, 1) of 3, members' 3. Ranks average 2, groups are 2: the factor is 1.
    """
    units = np.array([[4.0, 0, 0], [0, 2, 2], [2, 0, 2], [0, 4, 0]])
    made = grouped(units, np.array([1.0, 1, 3, 3]), 2, 2.0, np.random.default_rng(0))
    assert sorted(made.tolist()) == [[0, 3.5, 0.5], [2.5, 0, 1.5]]
    made = grouped(units, np.ones(4), 2, 2.0, np.random.default_rng(0))
    assert sorted(made.tolist()) == [[0, 3, 1], [3, 0, 1]]


def test_both_reweightings():
    """One group of (3, -1) and (-1, 3): mean (1, 1), members' size 3, so (3, 3); ranks of 4 in 1 group: twice that."""
    made = grouped(np.array([[3.0, -1], [-1, 3]]), np.ones(2), 1, 4.0, np.random.default_rng(0))
    assert made.tolist() == [[6, 6]]


def test_a_mean_of_nothing_stays_nothing():
    assert grouped(np.array([[1.0, -1], [-1, 1]]), np.ones(2), 1, 1.0, np.random.default_rng(0)).tolist() == [[0, 0]]


def test_groups_are_found_and_none_is_empty():
    rng = np.random.default_rng(3)
    centres = 10 * rng.standard_normal((5, 8))
    units = np.concatenate([centre + 0.1 * rng.standard_normal((4, 8)) for centre in centres])
    labels = cluster(units, np.ones(20), 5, np.random.default_rng(0))
    assert all(len(set(labels[4 * i : 4 * i + 4])) == 1 for i in range(5))
    assert len(set(labels)) == 5
    same = np.ones((6, 3))
    assert len(set(cluster(same, np.ones(6), 4, np.random.default_rng(0)))) == 4


def test_a_group_for_each_unit_is_the_sum_scaled(adapter, merge, deltas):
    one, two = adapter("one", 1, r=4), adapter("two", 2, r=2, lora_alpha=3)
    found = deltas(merge(recipe({"one": 1, "two": 5}, 99)).path)
    for name, delta in found.items():
        wanted = (deltas(one)[name] + deltas(two)[name]) * (3 / 6)  # mean rank 3, 6 units: each factor by its root
        np.testing.assert_allclose(delta, wanted, atol=1e-6)


def test_ranks_seeds_and_repeats(adapter, merge):
    adapter("one", 1, r=4), adapter("two", 2, r=6, target_modules=["q_proj", "up_proj"])
    said = recipe({"one": 1, "two": 1}, 3)
    made = merge(said, threads=1)
    first = (made.path / "adapter_model.safetensors").read_bytes()
    assert {module.rank for module in made.modules} == {3}
    assert first == (merge(said, threads=3).path / "adapter_model.safetensors").read_bytes()


def test_what_a_rule_copies_is_copied(adapter, merge, deltas):
    adapter("one", 1), adapter("two", 2)
    made = merge(recipe({"one": 1, "two": 1}, 3, tensors=[{"match": "*.0.*", "copy_from": "two"}]))
    found, two = deltas(made.path), deltas(made.path.with_name("two"))
    assert sorted({(".0." in one.module, one.rank) for one in made.modules}) == [(False, 3), (True, 4)]
    for name in found:
        assert np.allclose(found[name], two[name], atol=1e-7) == (".0." in name)


def test_what_clusters_refuse(adapter, merge):
    adapter("one", 1), adapter("two", 2)
    with pytest.raises(MergeError, match="no adapter can have a negative weight in a mean"):
        merge(recipe({"one": 2, "two": -1}, 3))
    with pytest.raises(RecipeError, match="merge_method is linear there, not slerp"):
        merge(recipe({"one": 1, "two": 1}, 3, merge_method="slerp", base_model="one"))
    with pytest.raises(RecipeError, match="no rule has a method of its own there"):
        merge(recipe({"one": 1, "two": 1}, 3, tensors=[{"match": "*", "merge_method": "median"}]))
