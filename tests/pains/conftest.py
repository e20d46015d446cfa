"""Tiny real models, saved by transformers, and the command line run in this process."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

os.environ.setdefault("HF_HUB_OFFLINE", "1")

SIZES = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The JSON that it printed."""
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON lines that it printed."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path: Path):
    """Run the command line where the models are; `says` is a recipe's text in place of its file."""
    from plait.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any, says: str | None = None) -> Outcome:
        words = [str(argument) for argument in arguments]
        if says is not None:
            Path("r.yml").write_text(textwrap.dedent(says))
            words.insert(1, "r.yml")
        monkeypatch.setattr(sys, "argv", ["plait", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        said = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), said.out, said.err)

    return run


@pytest.fixture(scope="session")
def hf() -> SimpleNamespace:
    """torch, transformers and peft."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return SimpleNamespace(torch=torch, transformers=transformers, peft=peft)


@pytest.fixture
def model(hf, tmp_path: Path):
    """Save a model of a class of transformers; of one class all lie near each other, as fine-tunes do."""

    def make(name: str, kind: str = "LlamaForCausalLM", *, seed: int = 0, **config: Any) -> Path:
        model_class = getattr(hf.transformers, kind)
        settings = model_class.config_class(**SIZES | config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hf.torch.manual_seed(0)
            made = model_class(settings)
            with hf.torch.no_grad():
                for spread, then in ((0.05, 1), (0.02, 1000 + seed)):  # biases and norms are constant at first
                    generator = hf.torch.Generator().manual_seed(then)
                    for parameter in made.parameters():
                        parameter.add_(hf.torch.randn(parameter.shape, generator=generator) * spread)
            made.save_pretrained(tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def load(hf, tmp_path: Path):
    """Load a folder with its class; no key may be missing, unexpected or of another shape."""

    def loaded(folder: Any, kind: str = "LlamaForCausalLM") -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, info = getattr(hf.transformers, kind).from_pretrained(
                tmp_path / folder, output_loading_info=True, dtype=hf.torch.float32
            )
        wrong = {key: value for key, value in info.items() if key != "error_msgs" and value}
        assert not wrong, wrong
        return found.eval()

    return loaded


@pytest.fixture
def logits(hf, load):
    """What a text model makes of a few tokens."""

    def run(folder: Any, kind: str = "LlamaForCausalLM") -> np.ndarray:
        found = load(folder, kind) if isinstance(folder, (str, Path)) else folder
        with hf.torch.no_grad():
            made = found(hf.torch.arange(3, 15)[None]).logits.numpy()
        assert np.isfinite(made).all()
        return made

    return run


@pytest.fixture
def rewrite(tmp_path: Path):
    """Change the tensors of a folder, by `change` on its arrays, and its config."""
    import plait

    def edit(folder: Any, change: Any = None, **config: Any) -> Path:
        place = tmp_path / folder
        if change is not None:
            arrays = plait.load(place)
            for file in place.glob("*.safetensors"):
                file.unlink()
            save_file(change(arrays) or arrays, place / "model.safetensors", metadata={"format": "pt"})
        if config:
            known = json.loads((place / "config.json").read_text())
            (place / "config.json").write_text(json.dumps(known | config))
        return place

    return edit


@pytest.fixture
def config_of(tmp_path: Path):
    """Read a folder's config.json, or another of its JSON files."""
    return lambda folder, file="config.json": json.loads((tmp_path / folder / file).read_text())


@pytest.fixture
def near():
    """Compare arrays by name, to a few units of their last place."""

    def check(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
        assert found.keys() == wanted.keys()
        for name, array in found.items():
            np.testing.assert_allclose(
                np.asarray(array, np.float32), np.asarray(wanted[name], np.float32), rtol=1e-5, atol=1e-6, err_msg=name
            )

    return check


TEXTS = {
    "a": ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog"],
    "b": ["le chat est sur la table", "le chien est dans la rue", "un chat et un chien"],
}


@pytest.fixture
def tokenizer(tmp_path: Path):
    """Train a tokenizer on one of two corpora and save it as transformers does; `added` tokens come last."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    def make(folder: Any, corpus: str = "a", *, size: int = 60, added: tuple[str, ...] = ()) -> Tokenizer:
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        special = ["<pad>", "<s>", "</s>"]
        made.train_from_iterator(
            TEXTS[corpus], trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
        )
        made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in added])
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        made.save(str(place / "tokenizer.json"))
        about = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "bos_token": "<s>"}
        (place / "tokenizer_config.json").write_text(json.dumps(about | {"eos_token": "</s>"}))
        return made

    return make


@pytest.fixture
def vocabulary(tmp_path: Path):
    """Read the tokens of a folder: text -> number."""
    from tokenizers import Tokenizer

    return lambda folder: Tokenizer.from_file(str(tmp_path / folder / "tokenizer.json")).get_vocab()
