"""What is written is what peft loads: every kind of factor, what is saved whole, biases."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from plait.errors import MergeError, RecipeError


def recipe(names, method="linear", adapter=None, **more):
    models = [{"model": name, "parameters": {"weight": 1 + i}} for i, name in enumerate(names)]
    return {"models": models, "merge_method": method, "adapter": adapter or {"exact": True}, **more}


def loaded(hf, model, folder):
    """The model with the adapter put into its weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = hf.peft.PeftModel.from_pretrained(model, folder).merge_and_unload()
    return {name: tensor.double().numpy() for name, tensor in whole.state_dict().items()}


def mean_of(hf, base, folders, method="linear"):
    """Weights 1, 2, … of the models with the adapters put into them, as `recipe` has them."""
    weights = [loaded(hf, base(), folder) for folder in folders]
    total = sum(range(1, len(folders) + 1)) if method == "linear" else 1
    return {name: sum((1 + i) * one[name] for i, one in enumerate(weights)) / total for name in weights[0]}


def same(found, wanted, bound=1e-6):
    assert found.keys() == wanted.keys()
    for name in found:
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize("spec", [{"exact": True}, {"rank": 32}])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora_bias": True},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"modules_to_save": ["lm_head", "norm"]},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": "all-linear"},
        {"layers_to_transform": [1]},
    ],
    ids=repr,
)
def test_the_mean_of_adapters_is_the_mean_of_the_models(hf, base, adapter, merge, settings, spec):
    folders = [adapter("one", 1, **settings), adapter("two", 2, **settings | {"r": 3, "use_rslora": True})]
    same(loaded(hf, base(), merge(recipe(["one", "two"], adapter=spec)).path), mean_of(hf, base, folders))


@pytest.mark.parametrize("kind", ["gpt2"])
def test_weights_that_are_stored_transposed(hf, base, adapter, merge, kind):
    assert kind
    settings = {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}
    folders = [adapter("one", 1, **settings), adapter("two", 2, **settings | {"r": 3})]
    same(loaded(hf, base(), merge(recipe(["one", "two"])).path), mean_of(hf, base, folders))


def test_a_forward_pass_through_the_adapter(hf, base, adapter, merge, logits, tmp_path):
    folders = [adapter("one", 1, lora_bias=True), adapter("two", 2, r=3, target_modules=["q_proj", "up_proj"])]
    out = merge(recipe(["one", "two"], adapter={"rank": 32})).path
    model = base()
    model.load_state_dict({k: hf.torch.tensor(v) for k, v in mean_of(hf, base, folders).items()})
    with hf.torch.no_grad():
        wanted = model(hf.torch.arange(3, 30).reshape(1, -1)).logits.numpy()
    np.testing.assert_allclose(logits(out), wanted, atol=1e-4)


def test_every_module_has_a_bias_of_b_where_one_has(adapter, merge):
    adapter("one", 1, lora_bias=True), adapter("two", 2, target_modules=["up_proj"])
    found = load_file(merge(recipe(["one", "two"])).path / "adapter_model.safetensors")
    biases = {name: tensor for name, tensor in found.items() if name.endswith("lora_B.bias")}
    assert len(biases) == len(found) / 3
    assert all(tensor.any() == ("up_proj" not in name) for name, tensor in biases.items())


def test_a_bias_outlives_factors_that_cancel(hf, base, adapter, merge):
    one, two = adapter("one", 1, lora_bias=True), adapter("two", 1, lora_bias=True)
    tensors = load_file(two / "adapter_model.safetensors")
    save_file({k: 3 * v if "bias" in k else v for k, v in tensors.items()}, two / "adapter_model.safetensors")
    said = recipe(["one", "two"], "task_arithmetic", {"rank": 4})
    for given, weight in zip(said["models"], [1, -1], strict=True):
        given["parameters"]["weight"] = weight
    found, first = loaded(hf, base(), merge(said).path), loaded(hf, base(), one)
    start = {name: tensor.double().numpy() for name, tensor in base().state_dict().items()}
    for name in found:
        wanted = start[name] - 2 * (first[name] - start[name]) if name.endswith("bias") else start[name]
        np.testing.assert_allclose(found[name], wanted, atol=1e-6)


def test_ranks_that_differ_by_module_are_told_to_peft(hf, base, adapter, merge):
    folders = [adapter("one", 1, layers_to_transform=[0]), adapter("two", 2, r=3)]
    made = merge(recipe(["one", "two"]))
    config = json.loads((made.path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], set(config["rank_pattern"].values())) == (7, 7, {3})
    assert config["rank_pattern"] == config["alpha_pattern"]
    same(loaded(hf, base(), made.path), mean_of(hf, base, folders))


def test_targets_are_the_adapters_own_or_every_module_by_name(adapter, merge):
    adapter("one", 1), adapter("two", 2, target_modules=["up_proj"]), adapter("three", 3, layers_to_transform=[0])

    def targets(names, **more):
        out = merge(recipe(names, **more)).path
        return json.loads((out / "adapter_config.json").read_text())["target_modules"]

    assert targets(["one", "two"]) == ["q_proj", "up_proj", "v_proj"]
    assert targets(["one"], tensors=[{"match": "*.1.*", "drop": True}]) == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.0.self_attn.v_proj",
    ]
    assert len(targets(["three"])) == 2


def test_a_convolution(merge, tmp_path):
    rng = np.random.default_rng(0)
    total = 0
    for index, name in enumerate(["one", "two"]):
        down = rng.standard_normal((2 + index, 3, 2, 2)).astype(np.float32)
        up = rng.standard_normal((4, 2 + index, 1, 1)).astype(np.float32)
        (tmp_path / name).mkdir()
        tensors = {"base_model.model.conv.lora_A.weight": down, "base_model.model.conv.lora_B.weight": up}
        save_file(tensors, tmp_path / name / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": 2 + index, "lora_alpha": 4, "target_modules": ["conv"]}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(config))
        total = total + (1 + index) * 4 / (2 + index) * np.einsum("or,rihw->oihw", up[:, :, 0, 0], down)
    for spec in ({"exact": True}, {"rank": 9}):
        made = merge(recipe(["one", "two"], "task_arithmetic", spec))
        found = load_file(made.path / "adapter_model.safetensors")
        up, down = (found[f"base_model.model.conv.lora_{letter}.weight"] for letter in "BA")
        assert up.shape[2:] == (1, 1)
        np.testing.assert_allclose(np.einsum("or,rihw->oihw", up[:, :, 0, 0], down), total, atol=1e-5)


class TestSavedWhole:
    """Modules saved whole: merged when all have them, or when the base is known; else copied by rule, or refused."""

    def test_of_one_adapter_alone_is_copied_and_said(self, hf, base, adapter, merge):
        folders = [adapter("one", 1), adapter("two", 2, modules_to_save=["lm_head"])]
        made = merge(recipe(["one", "two"]))
        assert "lm_head.weight is saved whole by two alone: copied from two." in made.plan.notes
        whole = loaded(hf, base(), made.path)
        assert np.array_equal(whole["lm_head.weight"], loaded(hf, base(), folders[1])["lm_head.weight"])

    def test_of_one_adapter_alone_is_merged_where_the_base_is_known(self, hf, base, adapter, merge, models):
        folders = [adapter("one", 1), adapter("two", 2, modules_to_save=["lm_head"])]
        made = merge(recipe(["one", "two"], base_model=str(models("llama")[0])))
        same(loaded(hf, base(), made.path), mean_of(hf, base, folders))

    def test_the_base_is_no_adapter_to_be_averaged(self, hf, base, adapter, merge, models):
        settings = {"modules_to_save": ["lm_head"]}
        folders = [adapter("one", 1, **settings), adapter("two", 2, **settings)]
        said = {"models": [{"model": "one"}, {"model": "two"}], "merge_method": "linear", "adapter": {"exact": True}}
        made = merge(said | {"parameters": {"weight": 1}, "base_model": str(models("llama")[0])})
        one, two = (loaded(hf, base(), folder) for folder in folders)
        same(loaded(hf, base(), made.path), {name: (one[name] + two[name]) / 2 for name in one})

    def test_strict_refuses_to_copy(self, adapter, merge):
        adapter("one", 1), adapter("two", 2, modules_to_save=["lm_head"])
        with pytest.raises(RecipeError, match=r"strict: lm_head.weight is saved whole by two alone"):
            merge(recipe(["one", "two"], strict=True))
        merge(recipe(["one", "two"], strict=True, tensors=[{"match": "lm_head.*", "copy_from": "two"}]))

    def test_differences_need_the_base(self, hf, base, adapter, merge, models):
        settings = {"modules_to_save": ["lm_head"]}
        folders = [adapter("one", 1, **settings), adapter("two", 2, **settings)]
        said = recipe(["one", "two"], "task_arithmetic")
        with pytest.raises(RecipeError, match=r"these are saved whole: lm_head.weight. Name the base checkpoint"):
            merge(said)
        whole = loaded(hf, base(), merge(said | {"base_model": str(models("llama")[0])}).path)
        wanted, start = mean_of(hf, base, folders, "sum"), base().state_dict()
        same(whole, {name: tensor - 2 * start[name].double().numpy() for name, tensor in wanted.items()}, 2e-6)

    def test_a_rule_of_ones_own(self, hf, base, adapter, merge):
        settings = {"modules_to_save": ["lm_head"]}
        folders = [adapter("one", 1, **settings), adapter("two", 2, **settings)]
        said = recipe(["one", "two"], "ties", parameters={"density": 0.5})
        for rule, wanted in [
            ({"merge_method": "linear"}, mean_of(hf, base, folders)),
            ({"copy_from": "two"}, loaded(hf, base(), folders[1])),
        ]:
            made = merge(said | {"tensors": [{"match": "lm_head.weight", **rule}]})
            found = loaded(hf, base(), made.path)["lm_head.weight"]
            np.testing.assert_allclose(found, wanted["lm_head.weight"], atol=1e-6)

    def test_whole_here_and_factors_there_is_refused(self, adapter, merge):
        adapter("one", 1, modules_to_save=["lm_head"]), adapter("two", 2, target_modules=["lm_head"])
        with pytest.raises(RecipeError, match=r"lm_head.weight is saved whole by one, and two has factors for it"):
            merge(recipe(["one", "two"]))

    def test_base_biases_stay_with_modules_that_only_another_adapter_has(self, hf, base, adapter, merge, models):
        folders = [
            adapter("one", 1, bias="all", target_modules=["q_proj"]),
            adapter("two", 2, target_modules=["k_proj"]),
        ]
        made = merge(recipe(["one", "two"], base_model=str(models("llama")[0])))
        same(loaded(hf, base(), made.path), mean_of(hf, base, folders))

    def test_the_weight_under_an_embeddings_factors_must_be_one(self, adapter, merge):
        adapter("one", 1, target_modules=["embed_tokens"]), adapter("two", 2, target_modules=["embed_tokens"])
        merge(recipe(["one", "two"], "task_arithmetic"))
        file = adapter("three", 3, target_modules=["embed_tokens"]) / "adapter_model.safetensors"
        tensors = load_file(file)
        name = next(name for name in tensors if name.endswith("base_layer.weight"))
        tensors[name][3, 3] += 1
        save_file(tensors, file)
        with pytest.raises(MergeError, match=r"embed_tokens.base_layer.weight is not the same in all adapters"):
            merge(recipe(["one", "three"]), out="other")
