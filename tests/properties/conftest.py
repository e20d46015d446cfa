"""Checkpoints of numpy arrays, written in any way that a checkpoint may be written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

WIDTH = 4
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2, "hidden_size": WIDTH}
SHAPES = {
    "model.embed_tokens.weight": (7, WIDTH),
    **{
        f"model.layers.{i}.{name}.weight": shape
        for i in range(2)
        for name, shape in {
            "self_attn.q_proj": (WIDTH, WIDTH),
            "mlp.up_proj": (6, WIDTH),
            "input_layernorm": (WIDTH,),
        }.items()
    },
    "model.norm.weight": (WIDTH,),
    "lm_head.weight": (7, WIDTH),
}


@pytest.fixture(scope="session")
def draw():
    """Arrays of a small decoder, drawn by a seed; `rows` of its tables."""

    def make(seed: int, rows: int = 7) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        sizes = {name: (rows, WIDTH) if shape[0] == 7 else shape for name, shape in SHAPES.items()}
        return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in sizes.items()}

    return make


@pytest.fixture(scope="session")
def write():
    """Write arrays into a folder; `shards` gives the number of the file that each tensor lies in, in their order."""

    def save(folder: Path, arrays: Mapping[str, np.ndarray], shards: Sequence[int] = (), **config: Any) -> Path:
        folder.mkdir(parents=True)
        files = shards or [0] * len(arrays)
        names = {number: f"part-{place:05d}.safetensors" for place, number in enumerate(sorted(set(files)))}
        if len(names) == 1:
            names = dict.fromkeys(names, "model.safetensors")
        parts: dict[str, dict[str, np.ndarray]] = {}
        for (name, array), number in zip(arrays.items(), files, strict=True):
            parts.setdefault(names[number], {})[name] = array
        for file, part in parts.items():
            save_file(part, folder / file, metadata={"format": "pt"})
        if len(names) > 1:
            index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        (folder / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": 7} | config))
        return folder

    return save


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory):
    """A new folder each time it is called: examples of one test must not meet."""
    return lambda: tmp_path_factory.mktemp("example")
