"""adapter_config.json of a merged adapter: what peft makes of it."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest
from safetensors.numpy import save_file

import plait
from plait.adapters.merging.settings import Settings, adapter_config
from plait.checkpoint.adapters.settings import read_settings

BARE = Settings("org/base", None, (), "none", False, False, {})


@pytest.mark.parametrize(
    "ranks",
    [
        {"a.0.q": 4, "a.1.q": 4, "a.2.q": 2},
        {"q": 2, "x.q": 4, "y.x.q": 4, "v": 4},
        {"x.q": 2, "y.x.q": 3, "z.y.x.q": 4, "v": 4, "w": 4},
        {"layers.1.q": 2, "layers.11.q": 8, "layers.1a1.q": 8, "k": 8},
    ],
)
def test_every_module_has_its_own_rank_and_is_scaled_by_one(tmp_path, ranks):
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(adapter_config(BARE, ranks)))
    read = read_settings(str(file))
    assert {module: read.rank_of(module) for module in ranks} == ranks
    assert {read.scaling(module) for module in ranks} == {1.0}


def test_what_is_unusual_in_a_name_is_no_expression(tmp_path):
    ranks = {"a+b.q": 2, "c.q": 4, "d.q": 4}
    (key,) = adapter_config(BARE, ranks)["rank_pattern"]
    assert re.fullmatch(key, "a+b.q")
    assert tmp_path


def write(folder, modules, rank=2, **config):
    """An adapter of zeros and ones for the modules named."""
    import numpy as np

    tensors = {}
    for module in modules:
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.ones((rank, 3), np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.ones((4, rank), np.float32)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["q"]} | config
    (folder / "adapter_config.json").write_text(json.dumps(said))


@pytest.fixture
def config_of(tmp_path, monkeypatch):
    """The config of the sum of adapters, each given as its modules and what its own config has besides."""
    monkeypatch.chdir(tmp_path)

    def run(*adapters, base=None, **more):
        for index, (modules, config) in enumerate(adapters):
            write(tmp_path / str(index), modules, **config)
        models = [{"model": f"./{index}", "parameters": {"weight": 1}} for index in range(len(adapters))]
        recipe = {"models": models, "merge_method": "task_arithmetic", "adapter": {"exact": True}, **more}
        (tmp_path / "r.yml").write_text(json.dumps(recipe | ({"base_model": base} if base else {})))
        made = plait.merge(tmp_path / "r.yml", tmp_path / "out")
        config = json.loads((made.path / "adapter_config.json").read_text())
        return SimpleNamespace(**config, warnings=[str(warning) for warning in made.plan.warnings])

    return run


def test_a_target_that_the_base_has_elsewhere_is_not_named_short(config_of, tmp_path):
    import numpy as np

    (tmp_path / "base").mkdir()
    names = ("m.0.q", "m.1.q")
    save_file({f"{name}.weight": np.ones((4, 3), np.float32) for name in names}, tmp_path / "base/model.safetensors")
    assert config_of((["m.0.q"], {}), base="base").target_modules == ["m.0.q"]


def test_settings_of_the_adapters(config_of):
    one = (["m.0.q"], {"task_type": "CAUSAL_LM", "fan_in_fan_out": True, "revision": "v1", "lora_dropout": 0.1})
    two = (["m.0.q"], {"task_type": "SEQ_CLS", "revision": "v1", "inference_mode": False, "use_rslora": True})
    found = config_of(one, two)
    assert (found.task_type, found.revision, found.fan_in_fan_out) == ("CAUSAL_LM", "v1", True)
    assert (found.lora_dropout, found.inference_mode, found.use_rslora) == (0.0, True, False)
    assert any("task_type differs: CAUSAL_LM (./0), SEQ_CLS (./1)" in text for text in found.warnings)
    assert any("fan_in_fan_out is true in some" in text for text in found.warnings)
