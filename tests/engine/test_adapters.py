"""Adapters merged by the engine: the numbers of peft's merge_and_unload, and the same bytes however it is cut."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import plait
from plait.checkpoint import FileReader, open_checkpoint
from plait.errors import MergeError, RecipeError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

LLAMA = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 101,
    "attention_bias": True,
}
BAKED = "models: [{{model: {model}}}]\nmerge_method: passthrough\n"


def llama(**more):
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**LLAMA, "tie_word_embeddings": False, **more}))


def gpt2():
    config = transformers.GPT2Config(n_embd=48, n_layer=2, n_head=4, vocab_size=101, n_positions=64)
    return transformers.GPT2LMHeadModel(config)


def bert():
    config = transformers.BertConfig(
        hidden_size=48, num_hidden_layers=1, num_attention_heads=4, intermediate_size=80, vocab_size=101
    )
    return transformers.BertForSequenceClassification(config)


CASES = {
    "plain": (llama, {"target_modules": ["q_proj", "v_proj", "down_proj"], "lora_alpha": 16}),
    "all linear, rslora": (llama, {"target_modules": "all-linear", "use_rslora": True, "lora_alpha": 7}),
    "patterns": (
        llama,
        {
            "target_modules": ["q_proj", "up_proj", "down_proj"],
            "rank_pattern": {"layers.0.self_attn.q_proj": 3, "up_proj": 5},
            "alpha_pattern": {r"layers\.1\..*down_proj": 9, "q_proj": 2.5},
        },
    ),
    "dora": (llama, {"target_modules": ["q_proj", "down_proj"], "use_dora": True, "lora_alpha": 16}),
    "dora of embeddings": (llama, {"target_modules": ["embed_tokens", "k_proj"], "use_dora": True}),
    "lora bias": (llama, {"target_modules": ["q_proj", "v_proj"], "lora_bias": True}),
    "biases trained": (llama, {"target_modules": ["q_proj"], "bias": "all"}),
    "embeddings and head": (llama, {"target_modules": ["embed_tokens", "lm_head"], "lora_alpha": 24}),
    "modules to save": (llama, {"target_modules": ["o_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}),
    "fan in fan out": (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "fan in fan out, dora": (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "use_dora": True}),
    "embeddings of a tied model": (gpt2, {"target_modules": ["wte"], "fan_in_fan_out": True}),
    "a task head": (bert, {"target_modules": ["query", "dense"], "task_type": "SEQ_CLS"}),
}


def make(folder: Path, build, settings, *, seed=0, base=None) -> dict[str, np.ndarray]:
    """Write base/ and adapter/ in `folder`, all factors and magnitudes drawn at random; returns peft's merge."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build()
        where = folder / (base or "base")
        if base is None:
            model.save_pretrained(where)
        else:
            model = type(model).from_pretrained(where)
        adapted = peft.get_peft_model(model, peft.LoraConfig(**{"r": 4, "init_lora_weights": False, **settings}))
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if parameter.requires_grad and "lora_magnitude" in name:
                    parameter.mul_(torch.rand_like(parameter) + 0.5)
                elif parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        adapted.peft_config["default"].base_model_name_or_path = "../base"
        adapted.save_pretrained(folder / (f"adapter{seed}" if seed else "adapter"))
        merged = adapted.merge_and_unload()
        return {name: value.detach().float().numpy().copy() for name, value in merged.state_dict().items()}


def close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> int:
    """Hold every tensor against peft's, to 1e-5 of the largest entry; returns how many there are."""
    for name, array in found.items():
        assert array.shape == expected[name].shape, name
        worst = np.abs(np.asarray(array, np.float32) - expected[name]).max() / max(np.abs(expected[name]).max(), 1e-30)
        assert worst <= 1e-5, f"{name}: {worst}"
    return len(found)


@pytest.mark.parametrize("case", CASES)
def test_baking_an_adapter_in_is_what_peft_makes(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = make(tmp_path, *CASES[case])
    Path("recipe.yml").write_text(BAKED.format(model="base+adapter"))
    plait.merge("recipe.yml", "out")
    made, base = plait.load("out"), plait.load("base")
    assert close(made, expected) == len(base)
    assert any(not np.array_equal(made[name], base[name]) for name in base)
    Path("alone.yml").write_text(BAKED.format(model="adapter"))
    plait.merge("alone.yml", "alone")
    assert close(plait.load("alone"), made) == len(base)


@pytest.fixture
def two(tmp_path, monkeypatch):
    """A base with two adapters in this folder, the second a DoRA; returns both of peft's merges."""
    monkeypatch.chdir(tmp_path)
    first = make(tmp_path, *CASES["plain"])
    second = make(tmp_path, llama, CASES["dora"][1], seed=1, base="base")
    return first, second


TIES = """\
models:
  - {model: base+adapter, parameters: {weight: 0.6, density: 0.5}}
  - {model: base+adapter1, parameters: {weight: 0.4, density: 0.7}}
merge_method: dare_ties
base_model: base
"""


def weights(folder) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(Path(folder).glob("*.safetensors")))


def test_delta_methods_see_the_product_alone(two, tmp_path):
    Path("recipe.yml").write_text(
        "models:\n  - {model: base+adapter, parameters: {weight: 2}}\n  - {model: base+adapter1}\n"
        "merge_method: task_arithmetic\nbase_model: base\nparameters: {weight: 0.5}\n"
    )
    plait.merge("recipe.yml", "out")
    base = {name: array.astype(np.float32) for name, array in plait.load("base").items()}
    expected = {name: base[name] + 2 * (two[0][name] - base[name]) + 0.5 * (two[1][name] - base[name]) for name in base}
    assert close(plait.load("out"), expected) == len(base)


@pytest.mark.parametrize("where", ["relative", "absolute"])
def test_the_lock_gives_the_same_bytes_and_tells_of_no_path(where, two, tmp_path, monkeypatch):
    root = f"{tmp_path}/" if where == "absolute" else ""
    text = TIES.replace("model: base+adapter", f"model: {root}base+{root}adapter").replace(
        ": base\n", f": {root}base\n"
    )
    Path("recipe.yml").write_text(text)
    plait.merge("recipe.yml", "out")
    written = "".join((tmp_path / "out" / name).read_text() for name in ("README.md", "plait.lock"))
    assert str(tmp_path) not in written
    monkeypatch.chdir("/")
    plait.merge(tmp_path / "out" / "plait.lock", tmp_path / "again", threads=1)
    assert weights(tmp_path / "again") == weights(tmp_path / "out")


def test_a_changed_adapter_is_not_merged_from_a_lock(two, tmp_path):
    Path("recipe.yml").write_text(BAKED.format(model="base+adapter"))
    plait.merge("recipe.yml", "out")
    config = json.loads(Path("adapter/adapter_config.json").read_text())
    Path("adapter/adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 17}))
    with pytest.raises(MergeError, match="6 input tensors are not what the lock was made from"):
        plait.merge("out/plait.lock", "again")


def test_the_bytes_do_not_depend_on_threads_tiles_or_shards(two, small, monkeypatch):
    Path("recipe.yml").write_text(TIES)
    plait.merge("recipe.yml", "one", threads=1)
    monkeypatch.setattr("plait.engine.device.Cpu.batch", 1000)
    monkeypatch.setattr("plait.engine.device.Cpu.tile", 333)
    plait.merge("recipe.yml", "two", threads=2)
    assert weights("one") == weights("two")


@pytest.mark.parametrize("case", ["plain", "dora", "dora of embeddings", "fan in fan out, dora", "lora bias"])
def test_any_run_of_elements_is_the_same(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, *CASES[case])
    opened = open_checkpoint("adapter")
    rng = np.random.default_rng(0)
    derived = [tensor for tensor in opened.tensors.values() if tensor.derived]
    assert derived
    with FileReader() as reader:
        for tensor in derived:
            whole = np.empty(tensor.nbytes, np.uint8)
            reader.read_elements(tensor, 0, whole)
            for _ in range(8):
                start, stop = sorted(rng.choice(tensor.size + 1, 2, replace=False))
                part = np.empty((stop - start) * 4, np.uint8)
                reader.read_elements(tensor, int(start), part)
                assert part.tobytes() == whole[start * 4 : stop * 4].tobytes()


def test_an_adapter_on_bfloat16_is_added_in_float32_and_rounded_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, lambda: llama().to(torch.bfloat16), {**CASES["plain"][1]})
    Path("recipe.yml").write_text(BAKED.format(model="base+adapter"))
    plan = plait.plan("recipe.yml")
    step = next(step for step in plan.steps if step.name.endswith("0.self_attn.q_proj.weight"))
    assert (step.sources[0].dtype, step.dtype) == ("F32", "BF16")
    assert step.sources[0].nbytes > step.size * 2
    plait.merge("recipe.yml", "out")
    name = step.name
    factors = {key: value.float().numpy() for key, value in _adapter("adapter").items() if name[:-7] in key}
    down, up = (next(v for k, v in factors.items() if f"lora_{letter}" in k) for letter in "AB")
    exact = plait.load("base")[name].astype(np.float32) + 4.0 * (up @ down)
    made = plait.load("out")[name]
    assert made.dtype.name == "bfloat16"
    assert np.mean(made == exact.astype(made.dtype)) > 0.99  # the sum over the rank has another order


def _adapter(folder):
    from safetensors.torch import load_file

    return load_file(Path(folder) / "adapter_model.safetensors")


def test_a_head_of_its_own_on_a_tied_model_unties_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, lambda: llama(tie_word_embeddings=True), {"target_modules": ["lm_head", "q_proj"]})
    assert "lm_head.weight" not in plait.load("base")
    Path("recipe.yml").write_text(BAKED.format(model="base+adapter"))
    plan = plait.plan("recipe.yml")
    assert any("read as a head of its own" in note for note in plan.models[0].notes)
    plait.merge("recipe.yml", "out")
    made, base = plait.load("out"), plait.load("base")
    assert json.loads(Path("out/config.json").read_text())["tie_word_embeddings"] is False
    assert np.array_equal(made["model.embed_tokens.weight"], base["model.embed_tokens.weight"])
    ids = torch.arange(12)[None]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = transformers.AutoModelForCausalLM.from_pretrained("base")
        as_trained = peft.PeftModel.from_pretrained(plain, "adapter")(ids).logits
        ours = transformers.AutoModelForCausalLM.from_pretrained("out")(ids).logits
    assert torch.allclose(ours, as_trained, atol=1e-5)


def test_a_tied_head_follows_its_embedding_and_the_plan_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = make(tmp_path, lambda: llama(tie_word_embeddings=True), {"target_modules": ["embed_tokens"]})
    Path("recipe.yml").write_text(BAKED.format(model="base+adapter"))
    assert any("the head follows it" in note for note in plait.plan("recipe.yml").models[0].notes)
    plait.merge("recipe.yml", "out")
    made = plait.load("out")
    assert "lm_head.weight" not in made
    close(made, expected)


@pytest.mark.parametrize(
    "settings", [{"target_modules": ["embed_tokens"]}, {"target_modules": ["embed_tokens", "lm_head"]}]
)
def test_an_adapter_that_ties_both_ends_leaves_them_tied(settings, tmp_path, monkeypatch):
    """peft saves the factors, or the module, twice; its own merge_and_unload adds both to the one matrix."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path, lambda: llama(tie_word_embeddings=True), settings | {"ensure_weight_tying": True})
    saved = [name for name in _adapter("adapter") if "lm_head" in name]
    Path("recipe.yml").write_text(BAKED.format(model="base+adapter"))
    dropped = {drop.name for drop in plait.plan("recipe.yml").dropped}
    assert dropped - {"model.embed_tokens.weight"} == set(saved), "the base's embeddings, where the adapter has its own"
    assert any("lora_A" in name for name in saved)
    plait.merge("recipe.yml", "out")
    assert "lm_head.weight" not in plait.load("out")
    assert json.loads(Path("out/config.json").read_text())["tie_word_embeddings"] is True
    ids = torch.arange(12)[None]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = transformers.AutoModelForCausalLM.from_pretrained("base")
        trained = peft.PeftModel.from_pretrained(plain, "adapter")(ids).logits
        ours = transformers.AutoModelForCausalLM.from_pretrained("out")(ids).logits
    assert torch.allclose(ours, trained, atol=1e-4)


def test_an_adapter_saved_by_torch_is_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, llama, {"target_modules": ["q_proj", "down_proj"], "modules_to_save": ["lm_head"]})
    Path("recipe.yml").write_text(BAKED.format(model="base+adapter"))
    plait.merge("recipe.yml", "out")
    torch.save(_adapter("adapter"), "adapter/adapter_model.bin")
    Path("adapter/adapter_model.safetensors").unlink()
    plait.merge("recipe.yml", "again")
    assert Path("out/model.safetensors").read_bytes() == Path("again/model.safetensors").read_bytes()
    Path("alone.yml").write_text(BAKED.format(model="adapter"))
    plait.merge("alone.yml", "alone")
    assert Path("out/model.safetensors").read_bytes() == Path("alone/model.safetensors").read_bytes()


def test_the_plan_tells_of_the_adapter_and_counts_its_bytes(two):
    Path("recipe.yml").write_text(TIES)
    plan = plait.plan("recipe.yml")
    notes = [note for model in plan.models for note in model.notes]
    assert any(note == "adapter adapter on base: 6 modules, rank 4." for note in notes)


def test_an_adapter_on_a_stage_is_refused(two):
    Path("recipe.yml").write_text(
        "name: soup\nmodels: [{model: base}]\nmerge_method: passthrough\n---\n" + BAKED.format(model="soup+adapter")
    )
    with pytest.raises(
        RecipeError, match=r"an adapter on a stage cannot be merged.*models that the stage is made from"
    ):
        plait.plan("recipe.yml")


def test_the_card_has_the_adapter_among_its_parents_with_its_licence(two):
    Path("base/README.md").write_text("---\nlicense: apache-2.0\n---\n")
    Path("adapter/README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    Path("recipe.yml").write_text(BAKED.format(model="base+adapter"))
    plait.merge("recipe.yml", "out")
    card = Path("out/README.md").read_text()
    assert "base_model:\n- base\n- adapter\n" in card
    assert "licence apache-2.0, cc-by-nc-4.0" in card
