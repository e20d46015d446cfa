"""How alike models are, over whole checkpoints in files: against numpy, cut anyhow, and where it cannot be told."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import plait
import plait.engine.kinship
import plait.engine.run  # before a fixture changes what its modules import from each other
from plait.engine.kinship import greedy_order


@pytest.fixture
def family(tmp_path, monkeypatch, write_llama):
    """A base and three models: b is near a, c is another's child; their deltas do not have mean 0."""
    monkeypatch.chdir(tmp_path)
    write_llama("base", 0)
    origin = load_file(tmp_path / "base" / "model.safetensors")
    shared = {name: np.random.default_rng(9).standard_normal(value.shape) + 0.4 for name, value in origin.items()}

    def child(name: str, seed: int, kin: float) -> None:
        def change(arrays: dict[str, np.ndarray]) -> None:
            for key, value in arrays.items():
                arrays[key] = (origin[key] + 0.1 * kin * shared[key] + 0.1 * value + 0.02).astype(np.float32)

        write_llama(name, seed, change=change)

    for name, seed, kin in (("a", 1, 1), ("b", 2, 1), ("c", 3, -0.3)):
        child(name, seed, kin)
    return tmp_path


def deltas(folder, *names: str) -> np.ndarray:
    base, *models = (load_file(folder / name / "model.safetensors") for name in ("base", *names))
    return np.stack([np.concatenate([(model[key] - base[key]).ravel() for key in base]) for model in models])


def test_correlations_cosines_and_distances_are_numpys(family):
    wide = deltas(family, "a", "b", "c").astype(np.float64)
    found = {
        measure: plait.kinship(["a", "b", "c"], "base", measure=measure) for measure in plait.engine.kinship.MEASURES
    }
    np.testing.assert_allclose(found["pearson"].matrix, np.corrcoef(wide), rtol=0, atol=1e-12)
    units = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    np.testing.assert_allclose(found["cosine"].matrix, units @ units.T, rtol=0, atol=1e-12)
    apart = np.linalg.norm(wide[:, None] - wide, axis=-1)
    np.testing.assert_allclose(found["euclidean"].matrix, apart, rtol=1e-12)
    assert np.abs(found["pearson"].matrix - found["cosine"].matrix).max() > 0.02
    for one in found.values():
        assert (one.models, one.compared, dict(one.left_out)) == (("a", "b", "c"), wide.shape[1], {})
        assert set(one.order[:2]) in ({0, 2}, {1, 2}), "c is the most distant"


def test_threads_and_tiles_do_not_change_a_bit(family, monkeypatch):
    for measure in plait.engine.kinship.MEASURES:
        whole = plait.kinship(["a", "b", "c"], "base", measure=measure, threads=1).matrix
        with monkeypatch.context() as cut:
            cut.setattr("plait.engine.device.Cpu.tile", 4096)
            cut.setattr("plait.engine.device.Cpu.batch", 4096)
            cut.setattr("plait.engine.kinship.CHUNK", 4096)
            assert (
                plait.kinship(["a", "b", "c"], "base", measure=measure, threads=3).matrix.tobytes() == whole.tobytes()
            )


def test_a_model_that_is_the_base_has_no_kin(family, write_llama):
    write_llama("same", 0)
    for measure in ("pearson", "cosine"):
        matrix = plait.kinship(["a", "same"], "base", measure=measure).matrix
        assert matrix.tolist() == [[1, 0], [0, 1]]
    matrix = plait.kinship(["a", "same"], "base", measure="euclidean").matrix
    assert matrix[0, 1] == pytest.approx(np.linalg.norm(deltas(family, "a").astype(np.float64)))


def test_a_delta_that_is_the_same_everywhere_correlates_with_nothing(family, write_llama):
    def change(arrays):
        for key in arrays:
            arrays[key] = np.zeros_like(arrays[key])

    def lifted(arrays):
        for key in arrays:
            arrays[key] = np.full_like(arrays[key], 0.1)

    write_llama("zero", 0, change=change)
    write_llama("lifted", 0, change=lifted)
    assert plait.kinship(["a", "lifted"], "zero").matrix.tolist() == [[1, 0], [0, 1]]
    assert plait.kinship(["a", "lifted"], "zero", measure="cosine").matrix[0, 1] > 0.01


def test_what_cannot_be_compared_is_told(family, write_llama):
    def change(arrays):
        arrays["extra.weight"] = np.ones(3, np.float32)

    write_llama("more", 5, change=change)
    found = plait.kinship(["more", "a"], "base")
    assert found.compared == deltas(family, "a").shape[1]
    write_llama("deep", 5, layers=3)
    with pytest.raises(plait.RecipeError, match="3 layers"):
        plait.kinship(["a", "deep"], "base")
    with pytest.raises(plait.RecipeError, match="no such file"):
        plait.kinship(["a", "nowhere"], "base")
    with pytest.raises(plait.PlaitError, match="two or more besides the base, not 1"):
        plait.kinship(["a"], "base")
    with pytest.raises(plait.PlaitError, match=r"'spearman'.*pearson, cosine, euclidean"):
        plait.kinship(["a", "b"], "base", measure="spearman")


def test_infinity_is_refused(family):
    weights = load_file("b/model.safetensors")
    weights["model.norm.weight"][3] = np.inf
    save_file(weights, "b/model.safetensors", metadata={"format": "pt"})
    for measure in ("pearson", "cosine"):
        with pytest.raises(plait.MergeError, match=r"model\.norm\.weight of b has NaN or infinity"):
            plait.kinship(["a", "b"], "base", measure=measure)


def test_the_order_begins_with_the_least_alike_and_goes_on_with_what_is_new():
    # 1 and 3 are least alike; 0's nearest of these is 0.8, 2's 0.6, 4's 0.6 as well: 2 first, as it is listed first
    alike = np.array(
        [
            [1.0, 0.8, 0.3, 0.2, 0.9],
            [0.8, 1.0, 0.6, -0.5, 0.1],
            [0.3, 0.6, 1.0, 0.4, 0.7],
            [0.2, -0.5, 0.4, 1.0, 0.6],
            [0.9, 0.1, 0.7, 0.6, 1.0],
        ]
    )
    assert greedy_order(alike) == (1, 3, 2, 4, 0)
    assert greedy_order(np.eye(3)) == (0, 1, 2)
    assert greedy_order(np.eye(1)) == (0,)
