"""Pain 9: adapters in, adapters out, and their arithmetic."""

from __future__ import annotations

import json
import warnings

import ml_dtypes
import numpy as np
import pytest

import plait

BAKED = "models: [{{model: {0}}}]\nmerge_method: passthrough\n"


@pytest.fixture
def adapter(hf, load, tmp_path):
    """Make an adapter on the folder `base` with peft, its factors drawn at random; returns what peft merges."""

    def make(name: str, *, seed: int = 1, base: str = "base", **settings):
        hf.torch.manual_seed(seed)
        config = hf.peft.LoraConfig(**{"r": 3, "lora_alpha": 7, "init_lora_weights": False} | settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = hf.peft.get_peft_model(load(base), config)
            adapted.peft_config["default"].base_model_name_or_path = "base"
            adapted.save_pretrained(tmp_path / name)
            merged = adapted.merge_and_unload()
        return {key: value.detach().numpy() for key, value in merged.state_dict().items()}

    return make


KINDS = {
    "lora": {"target_modules": ["q_proj", "down_proj"]},
    "rslora with patterns": {
        "target_modules": ["q_proj", "up_proj", "down_proj"],
        "use_rslora": True,
        "rank_pattern": {"up_proj": 2},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 3},
    },
    "dora": {"target_modules": ["v_proj", "o_proj"], "use_dora": True},
    "modules saved whole": {"target_modules": ["gate_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("saved", ["safetensors", "bin"])
def test_an_adapter_is_baked_in_as_peft_does(kind, saved, cli, hf, model, adapter, tmp_path):
    """peft#3737, peft#3761; mk#442: without a cache, exact in float32."""
    model("base")
    wanted = adapter("ad", **KINDS[kind])
    if saved == "bin":
        file = tmp_path / "ad" / "adapter_model.safetensors"
        hf.torch.save({k: hf.torch.from_numpy(v) for k, v in plait_load(file).items()}, file.with_suffix(".bin"))
        file.unlink()
    done = cli("merge", "out", says=BAKED.format("base+ad" if saved == "bin" else "ad"))  # alone it finds its base
    assert done.code == 0, done.err
    for name, array in plait.load("out").items():
        np.testing.assert_allclose(array, wanted[name], atol=1e-5 * abs(wanted[name]).max(), err_msg=name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ad", "base", "out", "r.yml"]


def plait_load(file):
    from safetensors.numpy import load_file

    return load_file(file)


def test_deltas_are_merged_and_not_factors(cli, model, adapter):
    """peft#3004: weights of 1 and -1 give the same result, with cross terms between the adapters."""
    model("base")
    one, two = adapter("one", target_modules=["q_proj"]), adapter("two", seed=2, target_modules=["q_proj", "v_proj"])
    text = "models: [{{model: base+one}}, {{model: base+two, parameters: {{weight: {0}}}}}]\nmerge_method: task_arithmetic\n"
    made = []
    for weight in (1.0, -1.0):
        out = f"out{weight}"
        assert cli("merge", out, says=text.format(weight) + "base_model: base\nparameters: {weight: 1}\n").code == 0
        base, found = plait.load("base"), plait.load(out)
        made.append(found)
        for name, array in found.items():
            wanted = one[name] + weight * (two[name] - base[name])
            np.testing.assert_allclose(array, wanted, atol=1e-5, err_msg=name)
    key = "model.layers.0.self_attn.q_proj.weight"
    assert abs(made[0][key] - made[1][key]).max() > 0.1


def in_fp8(arrays):
    """One scale a tensor, as compressed-tensors writes FP8."""
    stored = {}
    for name, array in arrays.items():
        if "_proj" in name:
            scale = np.float32(abs(array).max() / 448)
            stored[name] = (array / scale).astype(ml_dtypes.float8_e4m3fn)
            stored[f"{name}_scale"] = scale.reshape(1)
        else:
            stored[name] = array
    return stored


def in_int4(arrays):
    """Groups of 8 in 4 bits, as compressed-tensors packs them."""
    stored = {}
    for name, array in arrays.items():
        if "_proj" not in name:
            stored[name] = array
            continue
        groups = array.reshape(len(array), -1, 8)
        scales = (abs(groups).max(axis=2, keepdims=True) / 7).astype(np.float32)
        fields = (np.rint(groups / scales) + 8).astype(np.uint32).reshape(len(array), -1, 8)
        words = sum(fields[:, :, k] << np.uint32(4 * k) for k in range(8)).astype(np.uint32).view(np.int32)
        stem = name.removesuffix("weight")
        shape = np.array(array.shape, np.int64)
        stored |= {f"{stem}weight_packed": words, f"{stem}weight_scale": scales[:, :, 0], f"{stem}weight_shape": shape}
    return stored


PACKED = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 8}
STORED = {
    "fp8": (in_fp8, {"quant_method": "compressed-tensors", "format": "float-quantized"}),
    "int4": (
        in_int4,
        {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"0": {"weights": PACKED}}},
    ),
}


@pytest.mark.parametrize("form", STORED)
@pytest.mark.parametrize("kind", ["lora", "dora", "modules saved whole"])
def test_an_adapter_on_a_quantised_base(form, kind, cli, model, rewrite, adapter, config_of, tmp_path):
    """peft#2321, peft#2105: QLoRA. The base is dequantised, then the product is added in float32."""
    model("base")
    change, about = STORED[form]
    rewrite("base", change, quantization_config=about, torch_dtype="float32")
    (tmp_path / "base").rename(tmp_path / "stored")
    assert cli("merge", "base", says=BAKED.format("stored")).code == 0  # what it means
    wanted = adapter("ad", **KINDS[kind])
    (tmp_path / "base").rename(tmp_path / "plain")
    done = cli("merge", "out", says=BAKED.format("stored+ad"))
    assert done.code == 0, done.err
    made = plait.load("out")
    assert made.keys() == plait.load("plain").keys()
    for name, array in made.items():
        np.testing.assert_allclose(array, wanted[name], atol=1e-5 * abs(wanted[name]).max(), err_msg=name)
    assert "quantization_config" not in config_of("out")


@pytest.mark.parametrize("kind", ["LOHA", "IA3", "PROMPT_TUNING"])
def test_what_is_no_lora_is_refused_by_name(kind, cli, model, adapter, tmp_path):
    model("base")
    adapter("ad", target_modules=["q_proj"])
    about = json.loads((tmp_path / "ad/adapter_config.json").read_text())
    (tmp_path / "ad/adapter_config.json").write_text(json.dumps(about | {"peft_type": kind}))
    done = cli("merge", "out", says=BAKED.format("base+ad"))
    assert done.code == 2
    assert f"a {kind} adapter. plait reads LoRA adapters" in done.err


def test_out_again_as_an_adapter(cli, hf, model, load, tmp_path, logits):
    """mk#328, mk#447: extraction fails after hours; peft#3737: what is written cannot be loaded."""
    model("base")
    model("tuned", seed=1)
    done = cli("extract", "base", "tuned", "ad", "--rank", "16")
    assert done.code == 0, done.err
    assert "total relative error" in done.out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = hf.peft.PeftModel.from_pretrained(load("base"), tmp_path / "ad").merge_and_unload()
    with hf.torch.no_grad():
        made = adapted(hf.torch.arange(3, 15)[None]).logits.numpy()
    np.testing.assert_allclose(made, logits("tuned"), atol=1e-4)
