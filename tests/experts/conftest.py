"""Tiny mixtures of experts made by transformers, each saved with one tensor an expert and with one for all of a layer."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

os.environ.setdefault("HF_HUB_OFFLINE", "1")

_TEXT = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "num_experts_per_tok": 2,
}
_LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
# family -> (class without Config, its config). The inner width is half the outer one in some, so that matrices are square.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", _TEXT | {"num_local_experts": 4}),
    "qwen2_moe": (
        "Qwen2Moe",
        _TEXT | {"num_experts": 4, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 12},
    ),
    "qwen3_moe": ("Qwen3Moe", _TEXT | {"num_experts": 4, "moe_intermediate_size": 8}),
    "deepseek_v3": (
        "DeepseekV3",
        {key: value for key, value in _TEXT.items() if key != "head_dim"}
        | _LATENT
        | {"n_routed_experts": 8, "moe_intermediate_size": 12, "n_group": 2, "topk_group": 1}
        | {"first_k_dense_replace": 1, "n_shared_experts": 1},
    ),
    "olmoe": ("Olmoe", {key: value for key, value in _TEXT.items() if key != "head_dim"} | {"num_experts": 4}),
    "gpt_oss": ("GptOss", _TEXT | {"num_local_experts": 4, "layer_types": ["full_attention", "sliding_attention"]}),
}


@dataclass(frozen=True)
class Family:
    """Two models near each other, in two layouts: folders by (which, layout)."""

    name: str
    kind: Any
    folders: dict[tuple[str, str], Path]

    def load(self, folder: Path) -> tuple[Any, dict[str, Any]]:
        """Load with the family's own class: the model, and what transformers says about its keys."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.kind.from_pretrained(folder, output_loading_info=True)

    def logits(self, folder: Path) -> Any:
        """What the model in a folder says to a few tokens; its keys must be the class's."""
        import torch

        model, said = self.load(folder)
        assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        with torch.no_grad():
            return model.eval()(torch.arange(3, 12)[None]).logits.float().numpy()


def _by_expert(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Write GPT-OSS as tools for quantising do: a linear layer for each projection of each expert."""
    found = {}
    for name, array in arrays.items():
        stem, _, last = name.rpartition("experts.")
        kind = "bias" if last.endswith("_bias") else "weight"
        for e in range(len(array) if stem else 0):
            own = array[e] if kind == "bias" else array[e].T
            if last.startswith("down_proj"):
                found[f"{stem}experts.{e}.down_proj.{kind}"] = own.copy()
            else:
                found[f"{stem}experts.{e}.gate_proj.{kind}"] = own[0::2].copy()
                found[f"{stem}experts.{e}.up_proj.{kind}"] = own[1::2].copy()
        if not stem:
            found[name] = array
    return found


def _save(model: Any, places: dict[str, Path], family: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(places["stacked"], save_original_format=False)
        if family != "gpt_oss":
            model.save_pretrained(places["each"])
            return
    shutil.copytree(places["stacked"], places["each"])
    arrays = load_file(places["stacked"] / "model.safetensors")
    save_file(_by_expert(arrays), places["each"] / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Family]:
    """Make a family's models, once a session."""
    transformers = pytest.importorskip("transformers")
    import torch

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    root = tmp_path_factory.mktemp("experts")
    known: dict[str, Family] = {}

    def make(name: str, dtype: str = "float32") -> Family:
        label = f"{name}-{dtype}"
        if label not in known:
            prefix, settings = FAMILIES[name]
            kind = getattr(transformers, f"{prefix}ForCausalLM")
            torch.manual_seed(5)
            model = kind(getattr(transformers, f"{prefix}Config")(**settings, dtype=dtype)).to(getattr(torch, dtype))
            folders = {}
            for which in ("a", "b"):
                with torch.no_grad():
                    for tensor in (*model.parameters(), *model.buffers()):
                        if tensor.is_floating_point():
                            tensor.add_(torch.randn_like(tensor) * 0.1)
                places = {layout: root / f"{label}-{which}-{layout}" for layout in ("each", "stacked")}
                _save(model, places, name)
                folders |= {(which, layout): place for layout, place in places.items()}
            known[label] = Family(name, kind, folders)
        return known[label]

    return make


@pytest.fixture
def recipe(tmp_path: Path):
    """Write an indented recipe to a file."""

    def write(text: str, name: str = "recipe.yml") -> Path:
        (tmp_path / name).write_text(textwrap.dedent(text))
        return tmp_path / name

    return write


@pytest.fixture
def write_model(tmp_path: Path):
    """Write arrays and a config as a checkpoint."""

    def write(name: str, arrays: dict[str, np.ndarray], **config: Any) -> Path:
        (tmp_path / name).mkdir()
        save_file(arrays, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
        if config:
            (tmp_path / name / "config.json").write_text(json.dumps(config))
        return tmp_path / name

    return write
