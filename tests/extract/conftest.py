"""Tiny models of transformers, in pairs of a base and one that differs from it."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def hf():
    """torch, transformers and peft, imported where the tests have them."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    transformers.logging.set_verbosity_error()
    return SimpleNamespace(torch=torch, transformers=transformers, peft=peft)


@pytest.fixture
def family(hf, tmp_path: Path):
    """Write `base` and `model`; `change(name, tensor)` makes a parameter of the model from the base's."""

    def make(kind: str, change, **settings) -> tuple[Path, Path]:
        hf.torch.manual_seed(0)
        made = hf.transformers.AutoModelForCausalLM.from_config(_config(hf, kind, settings)).float()
        with hf.torch.no_grad():
            for name, tensor in made.named_parameters():  # biases and norms that are not what they begin as
                if tensor.dim() == 1:
                    tensor.add_(0.1 * hf.torch.randn_like(tensor))
                del name
        made.save_pretrained(tmp_path / "base")
        with hf.torch.no_grad():
            for name, tensor in made.named_parameters():
                tensor.copy_(change(name, tensor))
        made.save_pretrained(tmp_path / "model")
        return tmp_path / "base", tmp_path / "model"

    return make


def _config(hf, kind, settings):
    sizes = {"vocab_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}
    sizes |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if kind != "gpt2":
        sizes |= {"intermediate_size": 48, "num_key_value_heads": 2}
    return hf.transformers.AutoConfig.for_model(kind, **sizes | settings)


@pytest.fixture
def logits(hf):
    """What a model folder, with an adapter where one is given, makes of a few tokens."""

    def run(folder: Path, adapter: Path | None = None, *, merged: bool = False):
        model = hf.transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=hf.torch.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Conv1D and tied embeddings; results are what is tested
            if adapter is not None:
                model = hf.peft.PeftModel.from_pretrained(model, adapter)
            if merged:
                model = model.merge_and_unload()
        with hf.torch.no_grad():
            return model.eval()(hf.torch.arange(3, 40).reshape(1, -1)).logits.numpy()

    return run


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
