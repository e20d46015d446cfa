"""Merging in the space that the adapters span: nothing is lost, and what is kept is the best of its rank."""

from __future__ import annotations

import numpy as np
import pytest

import plait
from plait.adapters.low_rank import Wanted
from plait.adapters.merging.factors import best
from plait.adapters.merging.modules import Joined, Part
from plait.adapters.merging.space import cores_of, space_of
from plait.checkpoint import FileReader, StoredTensor


def recipe(names, method, adapter, parameters=None, **more):
    models = [{"model": name, "parameters": {"weight": 0.3 + 0.4 * i}} for i, name in enumerate(names)]
    more = more if parameters is None else {**more, "parameters": parameters}
    return {"models": models, "merge_method": method, "adapter": adapter, **more}


def close(found, wanted, bound=3e-6):
    assert np.linalg.norm(found - wanted) <= bound * np.linalg.norm(wanted)


@pytest.fixture
def joined(tmp_path):
    """Write factors given as (up, down, scaling) and describe them as one module."""

    def make(*shares):
        parts = []
        for index, (up, down, scaling) in enumerate(shares):
            file = tmp_path / f"{index}.bin"
            raw = down.astype("<f4").tobytes() + up.astype("<f4").tobytes()
            file.write_bytes(raw)
            a = StoredTensor("A", "F32", down.shape, str(file), 0)
            parts.append(Part(index, a, StoredTensor("B", "F32", up.shape, str(file), down.size * 4), scaling))
        return Joined("m", False, tuple(parts))

    return make


def random(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("alike", [0.0, 1.0, 0.9999, 0.999999])
@pytest.mark.parametrize(("rows", "columns"), [(20, 30), (6, 30), (20, 6), (5, 4)])
def test_no_change_is_lost_whatever_the_sizes_or_likeness(joined, rows, columns, alike):
    rng = np.random.default_rng(0)
    shares = [(random(rng, rows, r), random(rng, r, columns), s) for r, s in [(3, 0.5), (4, -2.0), (2, 0.1)]]
    up, down = (alike * shares[0][i] + (1 - alike) * random(rng, *shares[0][i].shape) for i in (0, 1))
    shares.append((up, down, 0.5))
    one = joined(*shares)
    with FileReader() as reader:
        space = space_of(reader, one)
    assert space.cores.shape == (4, *one.core)
    assert np.allclose(space.left.T @ space.left, np.eye(one.core[0]), atol=1e-7)
    assert np.allclose(space.right @ space.right.T, np.eye(one.core[1]), atol=1e-7)
    with FileReader() as reader:
        assert cores_of(reader, one).tobytes() == space.cores.tobytes()
    for core, (up, down, scaling) in zip(space.cores, shares, strict=True):
        wanted = scaling * (up.astype(float) @ down.astype(float))
        assert np.allclose(space.left @ core @ space.right, wanted, atol=1e-10)


def test_the_bases_are_the_papers_so_the_order_of_adapters_does_not_matter(joined):
    rng = np.random.default_rng(1)
    shares = [(random(rng, 20, 3), random(rng, 3, 30), 1.0), (random(rng, 20, 2), random(rng, 2, 30), 1.0)]
    with FileReader() as reader:
        forth = space_of(reader, joined(*shares))
    with FileReader() as reader:
        back = space_of(reader, joined(*shares[::-1]))
    stacked = np.concatenate([up for up, _, _ in shares], axis=1).astype(float)
    wanted = np.linalg.svd(stacked, full_matrices=False)[0]
    assert np.allclose(np.abs(forth.left.T @ wanted), np.eye(5), atol=1e-8)
    assert np.allclose(np.abs(forth.cores[0]), np.abs(back.cores[1]), atol=1e-8)


@pytest.mark.parametrize("wanted", [Wanted(rank=3), Wanted(energy=0.8), Wanted(error=0.4), None])
def test_the_best_of_a_rank_is_the_truncated_svd(joined, wanted):
    rng = np.random.default_rng(2)
    one = joined((random(rng, 20, 4), random(rng, 4, 30), 1.0), (random(rng, 20, 5), random(rng, 5, 30), 0.5))
    with FileReader() as reader:
        space = space_of(reader, one)
    core = space.cores.sum(axis=0)
    whole = space.left @ core @ space.right
    made = best(space, core, wanted)
    left, values, right = np.linalg.svd(whole)
    assert made.rank == (wanted.enough(values**2, np.sum(values**2)) if wanted else 9)
    optimum = (left[:, : made.rank] * values[: made.rank]) @ right[: made.rank]
    close(made.up @ made.down, optimum, 1e-9)
    error = np.linalg.norm(whole - made.up @ made.down) / np.linalg.norm(whole)
    assert abs(error - made.error) < 1e-7


def test_directions_that_are_rounding_take_no_rank(joined):
    rng = np.random.default_rng(3)
    up, down = random(rng, 20, 3), random(rng, 3, 30)
    one = joined((up, down, 1.0), (up, down, 1.0))
    with FileReader() as reader:
        space = space_of(reader, one)
    assert one.core == (6, 6)
    assert best(space, space.cores.sum(axis=0), Wanted(rank=6)).rank == 3


def test_no_change_has_rank_zero(joined):
    rng = np.random.default_rng(4)
    one = joined((random(rng, 4, 2), random(rng, 2, 5), 1.0))
    with FileReader() as reader:
        assert best(space_of(reader, one), np.zeros((2, 2)), Wanted(rank=1)).rank == 0


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("linear", {}),
        ("task_arithmetic", {"scale": 0.7}),
        ("karcher", {}),
        ("model_stock", {}),
        ("nuslerp", {}),
        ("geometric_median", {}),
    ],
)
def test_methods_that_see_lengths_and_angles_merge_as_with_the_whole_matrices(
    adapter, merge, deltas, method, parameters
):
    folders = [adapter("one", 1), adapter("two", 2, r=6, lora_alpha=3)]
    said = recipe(["one", "two"], method, {"rank": 64}, parameters)
    if "weight" not in plait.methods.find_method(method).parameters:
        said["models"] = [{"model": "one"}, {"model": "two"}]
    found, own = deltas(merge(said).path), [deltas(folder) for folder in folders]
    given = {"weight": [0.3, 0.7]} if "weight" in plait.methods.find_method(method).parameters else {}
    base = {name: np.zeros_like(delta) for name, delta in own[0].items()}
    subtracts = plait.methods.find_method(method).sees.space == "deltas"
    wanted = plait.merge_tensors(own, method, base=base if subtracts else None, **given, **parameters)
    for name, delta in found.items():
        close(delta, wanted[name])


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_ties_in_the_core_space(adapter, merge, deltas, scope):
    """Against cores made here: singular vectors of all B and all A, TIES entry by entry, and back."""
    folders = [adapter("one", 1), adapter("two", 2, r=6, lora_alpha=3)]
    found = deltas(merge(recipe(["one", "two"], "ties", {"exact": True}, {"density": 0.4, "scope": scope})).path)
    cores, bases = [{}, {}], {}
    for name in found:
        pairs = [factors(folder, name) for folder in folders]
        stacked = np.concatenate([up * np.sqrt(s) for up, _, s in pairs], axis=1)
        left = np.linalg.svd(stacked, full_matrices=False)[0]
        right = np.linalg.svd(np.concatenate([down * np.sqrt(s) for _, down, s in pairs]), full_matrices=False)[2]
        bases[name] = left, right
        for index, (up, down, s) in enumerate(pairs):
            cores[index][name] = (s * left.T @ up @ down @ right.T).astype(np.float32)
    zeros = {name: np.zeros_like(core) for name, core in cores[0].items()}
    merged = plait.merge_tensors(cores, "ties", base=zeros, weight=[0.3, 0.7], density=0.4, scope=scope)
    for name, delta in found.items():
        left, right = bases[name]
        close(delta, left @ merged[name] @ right, 1e-5)


def factors(folder, module):
    """Up, down and scaling, in float64, of an adapter without patterns."""
    import json

    from safetensors.numpy import load_file

    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    up, down = (tensors[f"base_model.model.{module}.lora_{letter}.weight"].astype(float) for letter in "BA")
    return up, down, config["lora_alpha"] / config["r"]


def test_chance_follows_the_seed(adapter, merge, deltas):
    adapter("one", 1), adapter("two", 2)

    def run(seed):
        said = recipe(["one", "two"], "dare_linear", {"exact": True}, {"density": 0.5})
        return (merge(said, seed=seed).path / "adapter_model.safetensors").read_bytes()

    assert run(1) == run(1) != run(2)


def test_threads_do_not_change_the_bytes(adapter, merge):
    adapter("one", 1), adapter("two", 2, r=6)
    said = recipe(["one", "two"], "ties", {"error": 0.2}, {"density": 0.5, "scope": "model"})
    one, four = ((merge(said, threads=count).path / "adapter_model.safetensors").read_bytes() for count in (1, 4))
    assert one == four


def test_post_steps_and_slerp_between_two_adapters(adapter, merge, deltas):
    one, two = adapter("one", 1), adapter("two", 2)
    said = {"models": [{"model": "one"}, {"model": "two"}], "merge_method": "slerp", "base_model": "one"}
    found = deltas(merge(said | {"parameters": {"t": 0.3}, "adapter": {"rank": 16}}).path)
    wanted = plait.merge_tensors([deltas(two)], "slerp", base=deltas(one), t=0.3)
    for name, delta in found.items():
        close(delta, wanted[name])


def test_one_adapter_is_cut_to_a_smaller_rank(adapter, merge, deltas):
    one = adapter("one", 1, r=8)
    made = merge({"models": [{"model": "one"}], "merge_method": "passthrough", "adapter": {"rank": 2}})
    for module in made.modules:
        whole = deltas(one)[module.module]
        values = np.linalg.svd(whole)[1]
        assert module.rank == 2
        assert np.isclose(module.error, np.sqrt(np.sum(values[2:] ** 2) / np.sum(values**2)), rtol=1e-5)
        assert np.isclose(module.norm, np.linalg.norm(whole), rtol=1e-5)
        assert np.isclose(
            np.linalg.norm(whole - deltas(made.path)[module.module]), module.error * module.norm, rtol=1e-4
        )
