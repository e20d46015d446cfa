"""Adapters made with peft on a tiny model of transformers, and recipes that merge them."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file


@pytest.fixture(scope="session")
def hf():
    """torch, transformers and peft, imported where the tests have them."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    transformers.logging.set_verbosity_error()
    return SimpleNamespace(torch=torch, transformers=transformers, peft=peft)


SIZES = {"vocab_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}
LLAMA = {"intermediate_size": 48, "num_key_value_heads": 2, "attention_bias": True}


@pytest.fixture(scope="session")
def models(hf, tmp_path_factory):
    """Make a tiny model of a kind once; returns its folder, and a function that loads it."""
    made: dict[str, Path] = {}

    def make(kind: str):
        if kind not in made:
            hf.torch.manual_seed(0)
            ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
            config = hf.transformers.AutoConfig.for_model(kind, **SIZES, **ids, **(LLAMA if kind == "llama" else {}))
            made[kind] = tmp_path_factory.mktemp("models") / "base"
            hf.transformers.AutoModelForCausalLM.from_config(config).float().save_pretrained(made[kind])
        load = hf.transformers.AutoModelForCausalLM.from_pretrained
        return made[kind], lambda: load(made[kind], dtype=hf.torch.float32)

    return make


@pytest.fixture
def base(models, kind):
    """Load the tiny model."""
    return models(kind)[1]


@pytest.fixture
def kind():
    """Which kind of model; tests may say another."""
    return "llama"


@pytest.fixture(scope="session")
def adapters():
    """Adapters that were made, by everything that decides them."""
    return {}


@pytest.fixture
def adapter(hf, models, kind, adapters, tmp_path: Path):
    """Make an adapter of random numbers in tmp_path/NAME; settings are LoraConfig's."""

    def make(name: str, seed: int, **settings) -> Path:
        settings = {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj", "v_proj"],
            "task_type": "CAUSAL_LM",
        } | settings
        key = repr((kind, seed, settings))
        if key not in adapters:
            adapters[key] = _made(
                hf, models(kind)[1](), seed, settings, models(kind)[0].parent / f"adapter{len(adapters)}"
            )
        return shutil.copytree(adapters[key], tmp_path / name)

    return make


def _made(hf, model, seed, settings, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = hf.peft.get_peft_model(model, hf.peft.LoraConfig(**settings))
        hf.torch.manual_seed(seed)
        with hf.torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(0.1 * hf.torch.randn_like(parameter))
        model.save_pretrained(folder)
    return folder


@pytest.fixture
def logits(hf, base):
    """What the tiny model, with an adapter on it, makes of a few tokens."""

    def run(*folders: Path):
        model = base()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for folder in folders:
                model = hf.peft.PeftModel.from_pretrained(model, folder)
        with hf.torch.no_grad():
            return model.eval()(hf.torch.arange(3, 30).reshape(1, -1)).logits.double().numpy()

    return run


@pytest.fixture
def merge(tmp_path: Path, monkeypatch):
    """Merge by a recipe given as a mapping; returns the result, whose adapter is in tmp_path/out."""
    import plait

    monkeypatch.chdir(tmp_path)

    def run(recipe: dict, out: str = "out", **options):
        (tmp_path / "recipe.yml").write_text(json.dumps(recipe))
        return plait.merge(tmp_path / "recipe.yml", tmp_path / out, overwrite=True, **options)

    return run


def _deltas(folder: Path) -> dict[str, np.ndarray]:
    """Every module's change, in float64, read by the rules of peft's config."""
    import re

    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    found = {}
    for name, down in tensors.items():
        if ".lora_A." in name:
            module = name.removeprefix("base_model.model.").partition(".lora_A")[0]
            up = tensors[name.replace("lora_A", "lora_B")].astype(np.float64)

            def entry(key, usual, module=module):
                pairs = (config.get(key) or {}).items()
                return next((v for k, v in pairs if re.match(rf"(.*\.)?({k})$", module)), usual)

            rank = entry("rank_pattern", config["r"])
            assert rank == len(down), module
            alpha = entry("alpha_pattern", config["lora_alpha"])
            scaling = alpha / (rank**0.5 if config["use_rslora"] else rank)
            found[module] = scaling * (up @ down.astype(np.float64))
    return found


@pytest.fixture
def deltas():
    """Every module's change in an adapter's folder."""
    return _deltas


@pytest.fixture
def plait_command(monkeypatch, capsys):
    """Run the command line in this process: exit code, stdout, stderr."""
    from plait.cli import main

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["plait", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out, said.err

    return run
