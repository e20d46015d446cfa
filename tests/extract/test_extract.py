"""What is kept, what is refused, and that the same bytes come out."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import plait

GATE = "model.layers.1.mlp.gate_proj.weight"


@pytest.fixture
def pair(write_llama, tmp_path):
    """A base, and a model whose every tensor was changed; `edit` changes it further."""

    def make(edit=None):
        def change(arrays):
            rng = np.random.default_rng(9)
            for name in list(arrays):
                arrays[name] = arrays[name] + 0.1 * rng.standard_normal(arrays[name].shape).astype(np.float32)
            if edit:
                edit(arrays)

        return write_llama("base", 0), write_llama("model", 0, change=change), tmp_path / "out"

    return make


def _adapter(out):
    return plait.load(out / "adapter_model.safetensors"), json.loads((out / "adapter_config.json").read_text())


def _rebuilt(base, out):
    """The base with the adapter, by this test's own arithmetic."""
    adapter, _ = _adapter(out)
    made = dict(plait.load(base))
    for key, value in adapter.items():
        name = key.removeprefix("base_model.model.")
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight")
            made[f"{module}.weight"] = made[f"{module}.weight"] + adapter[key.replace("lora_A", "lora_B")] @ value
        elif ".lora_B." not in name:
            made[name] = value
    return made


def test_full_rank_gives_the_model_back(pair):
    base, model, out = pair()
    found = plait.extract(base, model, out, rank=99)
    rebuilt, wanted = _rebuilt(base, out), plait.load(model)
    assert rebuilt.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_allclose(rebuilt[name], array, atol=1e-6, err_msg=name)
    assert {one.rank for one in found.modules} == {4, 8}
    assert found.error < 1e-6
    assert set(found.saved) == {
        "model.embed_tokens", "model.norm",
        *(f"model.layers.{i}.{name}_layernorm" for i in range(2) for name in ("input", "post_attention")),
    }  # fmt: skip
    assert found.unchanged == 0
    assert sorted(entry.name for entry in out.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


@pytest.mark.parametrize(("key", "value"), [("energy", 0.8), ("error", 0.45)])
def test_the_smallest_rank_that_keeps_the_promise(pair, key, value):
    base, model, out = pair()
    found = plait.extract(base, model, out, **{key: value})
    before, after = plait.load(base), plait.load(model)
    ranks = set()
    for one in found.modules:
        name = f"{one.module}.weight"
        squares = np.linalg.svd((after[name] - before[name]).astype(float), compute_uv=False) ** 2
        lost = np.append(1 - np.cumsum(squares) / squares.sum(), 1)
        most = 1 - value if key == "energy" else value**2
        assert lost[one.rank - 1] <= most < lost[one.rank - 2]
        np.testing.assert_allclose(one.error, np.sqrt(lost[one.rank - 1]), rtol=1e-4)
        ranks.add(one.rank)
    assert len(ranks) > 1
    norms = np.array([one.norm for one in found.modules])
    errors = np.array([one.error for one in found.modules])
    np.testing.assert_allclose(found.error, np.sqrt(((errors * norms) ** 2).sum() / (norms**2).sum()))


def test_threads_and_repetition_give_the_same_bytes(pair):
    base, model, out = pair()
    contents = []
    for threads in (1, 3, 1):
        plait.extract(base, model, out, rank=2, threads=threads, overwrite=True)
        contents.append({entry.name: entry.read_bytes() for entry in out.iterdir()})
    assert contents[0] == contents[1] == contents[2]
    assert not out.with_name("out.partial").exists()


def test_a_random_projection_is_drawn_by_seed_and_name(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"layers.{i}.up.weight": rng.standard_normal((280, 300)).astype(np.float32) for i in range(2)}
    for name, factor in {"base": 0, "model": 1}.items():
        (tmp_path / name).mkdir()
        save_file({key: array * (1 + factor) for key, array in arrays.items()}, tmp_path / name / "model.safetensors")
    made = []
    for number, (threads, seed) in enumerate([(1, 0), (2, 0), (1, 1)]):
        out = tmp_path / str(number)
        found = plait.extract(tmp_path / "base", tmp_path / "model", out, rank=4, threads=threads, seed=seed)
        made.append((out / "adapter_model.safetensors").read_bytes())
    assert made[0] == made[1] != made[2]
    assert 0.9 < found.error < 1


def test_numbers_that_are_no_floats_are_saved_when_they_differ(pair):
    base, model, out = pair()
    for folder, count in ((base, 1), (model, 2)):
        arrays = {**plait.load(folder), "counter.seen": np.full(2, count), "counter.same": np.zeros(2, np.int64)}
        save_file(arrays, folder / "model.safetensors")
    found = plait.extract(base, model, out, rank=1)
    assert "counter" in found.saved
    adapter, _ = _adapter(out)
    assert adapter["base_model.model.counter.seen"].tolist() == [2, 2]
    assert adapter["base_model.model.counter.same"].tolist() == [0, 0], "peft wants all of a module"


def test_what_did_not_change_is_not_there(pair):
    base, model, out = pair()
    arrays = {name: array.copy() for name, array in plait.load(base).items()}
    arrays[GATE] += 1
    arrays["model.norm.weight"] += 1
    save_file(arrays, model / "model.safetensors")
    found = plait.extract(base, model, out, rank=1)
    assert [(one.module, one.rank) for one in found.modules] == [("model.layers.1.mlp.gate_proj", 1)]
    assert found.error < 1e-5
    assert found.saved == ("model.norm",)
    assert found.unchanged == len(arrays) - 2
    _, config = _adapter(out)
    assert config["target_modules"] == ["model.layers.1.mlp.gate_proj"], "the other layer's has no factors"
    assert config["modules_to_save"] == ["model.norm"]


def test_names_choose_and_what_is_left_out_is_named(pair):
    base, model, out = pair()
    found = plait.extract(base, model, out, include=r"proj|embed", exclude=r"layers\.0|k_proj", save_embeddings=False)
    assert {one.module.rsplit(".", 1)[1] for one in found.modules} == {
        "q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert all(".1." in one.module for one in found.modules)
    assert found.saved == ()
    assert found.left_out["model.embed_tokens.weight"] == "embeddings are left out, as asked"
    assert found.left_out["model.norm.weight"] == "not in include (proj|embed)"
    assert found.left_out["model.layers.1.self_attn.k_proj.weight"] == r"in exclude (layers\.0|k_proj)"
    assert len(found.left_out) + len(found.modules) == len(plait.load(base))


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda arrays: arrays.pop(GATE), ["gate_proj.weight is in", "base alone"]),
        (lambda arrays: arrays.update(extra=np.ones(3, np.float32)), ["extra is in", "model alone"]),
        (lambda arrays: arrays.update({GATE: np.ones((13, 8), np.float32)}), [GATE, "[12, 8]", "[13, 8]"]),
        (lambda arrays: arrays[GATE].fill(np.nan), [GATE, "NaN"]),
    ],
    ids=["lost", "more", "shape", "nan"],
)
def test_what_does_not_match_is_refused_by_name(pair, edit, told):
    base, model, out = pair(edit)
    with pytest.raises(plait.PlaitError) as error:
        plait.extract(base, model, out)
    assert all(word in str(error.value) for word in told)
    assert not out.exists()
    assert not out.with_name("out.partial").exists()


def test_what_does_not_match_may_be_left_out(pair):
    base, model, out = pair(lambda arrays: arrays.pop(GATE))
    found = plait.extract(base, model, out, exclude="layers.1.mlp.gate")
    assert "model.layers.1.mlp.gate_proj" not in {one.module for one in found.modules}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"rank": 0}, "from 1 up"),
        ({"rank": 2, "error": 0.1}, "one of rank, energy and error"),
        ({"energy": 1.0}, "between 0 and 1"),
        ({"error": 0.0}, "between 0 and 1"),
        ({"include": "("}, "not a regular expression"),
        ({"exclude": "nothing_like_it"}, "no tensor matches"),
    ],
)
def test_arguments_that_are_wrong(pair, arguments, told):
    base, model, out = pair()
    with pytest.raises(plait.PlaitError, match=told):
        plait.extract(base, model, out, **arguments)
    assert not out.exists()


def test_equal_models_have_nothing_to_extract(pair):
    base, _, out = pair()
    with pytest.raises(plait.PlaitError, match="nothing to extract"):
        plait.extract(base, base, out)


def test_nothing_is_overwritten_unasked(pair):
    base, model, out = pair()
    plait.extract(base, model, out, rank=1)
    before = (out / "adapter_model.safetensors").read_bytes()
    with pytest.raises(plait.OutputError, match="--overwrite"):
        plait.extract(base, model, out, rank=2)
    assert (out / "adapter_model.safetensors").read_bytes() == before
    plait.extract(base, model, out, rank=2, overwrite=True)
    assert _adapter(out)[1]["r"] == 2
    with pytest.raises(plait.OutputError, match="input"):
        plait.extract(base, model, base / "inside")


def test_element_types_may_differ(pair, tmp_path):
    base, model, out = pair()
    narrow = {name: array.astype(ml_dtypes.bfloat16) for name, array in plait.load(base).items()}
    save_file(narrow, base / "model.safetensors")
    plait.extract(base, model, out, rank=8)
    wanted = plait.load(model)
    base_wide = {name: array.astype(np.float32) for name, array in narrow.items()}
    save_file(base_wide, base / "model.safetensors")
    for name, array in _rebuilt(base, out).items():
        np.testing.assert_allclose(array, wanted[name], atol=1e-5)


def test_the_command(pair, plait_command):
    base, model, out = pair()
    code, said, told = plait_command("extract", str(base), str(model), str(out), "--rank", "3")
    assert code == 0
    lines = said.splitlines()
    assert lines[0].split() == ["module", "rank", "relative", "error"]
    assert "model.layers.0.self_attn.q_proj" in said
    assert "saved whole: model.norm" in lines
    assert "total relative error" in lines[-1]
    assert "rank 3, error" in told
    code, said, _ = plait_command("extract", str(base), str(model), str(out), "--error", "0.5", "--json", "--overwrite")
    data = json.loads(said)
    assert code == 0
    assert all(row["error"] <= 0.5 for row in data["modules"])
    assert plait_command("extract", str(base), str(model), str(out), "--energy", "0.5")[0] == 2
