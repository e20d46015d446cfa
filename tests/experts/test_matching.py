"""Experts matched before they are merged."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import plait
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
    assert lock["experts"] == {
        f"./b: {block.replace('mlp', 'block_sparse_moe') if base == 'each' and name == 'mixtral' else block.replace('block_sparse_moe', 'mlp')}": " ".join(
            str(e) for e in np.argsort(order)
        )
        for block, order in sorted(orders.items())
    }
    plait.merge(tmp_path / "out" / "plait.lock", tmp_path / "again", threads=1)
    assert (tmp_path / "again" / "plait.lock").read_bytes() != b""
    assert "in another's place" in (tmp_path / "out" / "README.md").read_text()
