"""Pain 1 again, down to the bytes: every tensor in every file of the inputs is read for the output, or named as dropped."""

from __future__ import annotations

import json
import warnings

import ml_dtypes
import numpy as np
import pytest

import plait

MEAN = "models: [{{model: {0}}}, {{model: {1}}}]\nmerge_method: linear\nparameters: {{weight: 0.5}}\n"


def stored(folder):
    """Where the tensors of the files of a folder lie: (file, name) -> (first byte, last and one)."""
    found = {}
    for file in folder.glob("*.safetensors"):
        raw = file.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        for name, one in json.loads(raw[8 : 8 + size]).items():
            if name != "__metadata__":
                begin, end = one["data_offsets"]
                found[str(file), name] = (8 + size + begin, 8 + size + end)
    return found


def covered(begin, end, spans):
    """Whether the spans together are all of [begin, end)."""
    for start, stop in sorted(spans):
        if start <= begin < stop:
            begin = stop
    return begin >= end


def in_fp8(arrays):
    kept = {}
    for name, array in arrays.items():
        if "_proj" in name:
            kept[name] = (array * 20).astype(ml_dtypes.float8_e4m3fn)
            kept[f"{name}_scale"] = np.full(1, 0.05, np.float32)
            kept[f"{name.removesuffix('weight')}input_scale"] = np.ones(1, np.float32)
        else:
            kept[name] = array
    return kept


def fused(arrays):
    kept = {name: array for name, array in arrays.items() if ".experts." not in name}
    for layer in range(2):
        stem = f"model.layers.{layer}.mlp.experts"
        each = [[arrays[f"{stem}.{i}.{part}_proj.weight"] for part in ("gate", "up", "down")] for i in range(4)]
        kept[f"{stem}.gate_up_proj"] = np.stack([np.concatenate(one[:2]) for one in each])
        kept[f"{stem}.down_proj"] = np.stack([one[2] for one in each])
    return kept


def with_head(arrays):
    arrays["lm_head.weight"] = arrays["model.embed_tokens.weight"].copy()


CHANGES = {
    "fused experts": {"b": fused},
    "a tied head that is stored": {"b": with_head},
    "other tensors": {
        "a": lambda arrays: arrays.update({"steps": np.arange(4)}),
        "b": lambda arrays: arrays.update({"extra.bias": np.ones(3, np.float32), "steps": np.arange(3)}),
    },
}


@pytest.fixture
def inputs(hf, model, rewrite, load, tokenizer, tmp_path):
    """Two inputs, by what is odd about the second."""

    def adapter(name, **settings):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = hf.peft.get_peft_model(load("b"), hf.peft.LoraConfig(r=2, **settings))
            adapted.save_pretrained(tmp_path / name)

    def make(what):
        moe = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
        for seed, name in enumerate("ab"):
            if "experts" in what:
                model(name, "Qwen3MoeForCausalLM", seed=seed, **moe)
            else:
                model(name, seed=seed, tie_word_embeddings="tied" in what)
        if what == "quantised":
            rewrite("b", in_fp8, quantization_config={"quant_method": "fp8"}, torch_dtype="float32")
        elif what == "an adapter":
            adapter("ad", target_modules=["q_proj", "up_proj"], modules_to_save=["lm_head"])
        elif what == "an adapter that is tied":
            adapter("ad", target_modules=["embed_tokens"], ensure_weight_tying=True)
        for name, change in CHANGES.get(what, {}).items():
            rewrite(name, change)
        if "adapter" in what:
            return ("a", "b+ad")
        return ("a", "b")

    return make


CASES = (
    *("plain", "quantised", "fused experts", "an adapter", "an adapter that is tied"),
    *("a tied head that is stored", "other tensors"),
)


LOSING = {"quantised", "an adapter", "an adapter that is tied", "a tied head that is stored", "other tensors"}


@pytest.mark.parametrize("what", CASES)
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
def test_the_ledger_has_every_tensor_of_every_file(what, turned, inputs, cli):
    pair = inputs(what)
    plan = cli("plan", "--json", says=MEAN.format(*(pair[::-1] if turned else pair))).data
    made = plait.plan("r.yml")
    read = {}
    for step in made.steps:
        for held in (held for one in step.inputs for held in one.tensor.held):
            read.setdefault(held.file, set()).add((held.offset, held.offset + held.reach))
    folders = dict.fromkeys(folder for model in made.models for folder in model.folders)
    files = {key: span for folder in folders for key, span in stored(folder).items()}
    lost = {name for (file, name), span in files.items() if not covered(*span, read.get(file, ()))}
    assert lost == {one["name"] for one in plan["ledger"]["dropped"]}
    assert bool(lost) == (what in LOSING)
    ledger = plan["ledger"]
    names = [*ledger["merged"], *(one["name"] for one in ledger["copied"])]
    assert sorted(names) == sorted(one["name"] for one in plan["tensors"])
    assert len(set(names)) == len(names)
    assert not set(names) & ledger["tied"].keys()
    assert all(one["reason"] for one in (*ledger["dropped"], *ledger["copied"]))
