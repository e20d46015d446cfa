"""The inputs of the parity tests: one tiny Llama base and three experts, the same bits on every machine.

Also read by benchmarks/mergekit_golden.py, which runs mergekit on the same files. Numbers come from Philox's raw
integers and a few exact float64 operations, so no numpy or libm release can change them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file

if TYPE_CHECKING:
    from types import ModuleType

HIDDEN, INTER, LAYERS, VOCAB, HEADS, KV_HEADS = 64, 96, 3, 100, 4, 2
MODELS = ("base", "expert0", "expert1", "expert2")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INTER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HIDDEN // HEADS,
    "vocab_size": VOCAB,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HERE = Path(__file__).parent


def shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of the tiny model, in the order of the layers."""
    kv = HIDDEN // HEADS * KV_HEADS
    out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        out |= {f"{prefix}{norm}_layernorm.weight": (HIDDEN,) for norm in ("input", "post_attention")}
        out |= {f"{prefix}self_attn.{p}_proj.weight": (HIDDEN if p in "qo" else kv, HIDDEN) for p in "qkvo"}
        out |= {f"{prefix}mlp.{p}_proj.weight": (INTER, HIDDEN) for p in ("gate", "up")}
        out[f"{prefix}mlp.down_proj.weight"] = (HIDDEN, INTER)
    return out | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}


def noise(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Bell-shaped noise of mean 0 and deviation 1: the sum of three uniform numbers of 21 bits each."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little")
    raw = np.random.Philox(key=seed).random_raw(int(np.prod(shape)))
    thirds = sum((raw >> shift & 0x1FFFFF).astype(np.float64) for shift in (0, 21, 42))
    return (2 * (thirds / 2**21 - 1.5)).reshape(shape)


def tensor(model: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One tensor of one model; an expert is the base plus a delta of which a tenth is exactly zero.

    The weights of two experts are far enough apart for SLERP's arc (cosine about 0.9), their norms are so near
    (cosine above 0.9995) that SLERP takes the straight line: both branches are met.
    """
    norm = len(shape) == 1
    base = 1 + 0.1 * noise(f"base/{name}", shape) if norm else 0.02 * noise(f"base/{name}", shape)
    if model != "base":
        delta = (0.02 if norm else 0.006) * noise(f"{model}/{name}", shape)
        base = base + np.where(noise(f"{model}/zero/{name}", shape) > 1.28, 0.0, delta)
    return base.astype(np.float32)


def make_models(folder: Path) -> dict[str, Path]:
    """Write the four models under `folder`; returns name -> folder."""
    out = {}
    for model in MODELS:
        out[model] = folder / model
        out[model].mkdir(parents=True)
        weights = {name: tensor(model, name, shape) for name, shape in shapes().items()}
        save_file(weights, out[model] / "model.safetensors", metadata={"format": "pt"})
        (out[model] / "config.json").write_text(json.dumps(CONFIG, indent=1))
    return out


def fingerprint(models: dict[str, Path]) -> str:
    """SHA-256 over the weights' files: the golden file was made from exactly these."""
    digest = hashlib.sha256()
    for model in MODELS:
        digest.update((models[model] / "model.safetensors").read_bytes())
    return digest.hexdigest()


def is_kept(name: str) -> bool:
    """Whether the golden file has (rows of) this tensor itself, and not only its sums."""
    return "norm" in name or name.endswith(("embed_tokens.weight", "lm_head.weight", "self_attn.k_proj.weight"))


def kept_rows(value: np.ndarray) -> np.ndarray:
    """The part that is kept of a kept tensor: at most 16 rows, evenly spread."""
    return value if value.ndim == 1 or len(value) <= 32 else value[:: len(value) // 16][:16]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The four tiny models, by name."""
    return make_models(tmp_path_factory.mktemp("parity"))


@pytest.fixture(scope="session")
def inputs() -> ModuleType:
    """This module: test modules cannot import it by name."""
    return sys.modules[__name__]


@pytest.fixture(scope="session")
def references() -> ModuleType:
    """benchmarks/references.py, which is no package to import from."""
    file = HERE.parents[1] / "benchmarks" / "references.py"
    spec = importlib.util.spec_from_file_location("bench_references", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
