#!/usr/bin/env python3
"""Make Llama-shaped checkpoints to measure with: DIR/base and DIR/expert0, expert1, ... in bfloat16, in shards.

    python benchmarks/synthetic.py DIR --preset 1b --experts 3
    python benchmarks/synthetic.py DIR --preset 405b --experts 8 --sparse     headers and sizes only, for planning
    python benchmarks/synthetic.py DIR --preset s --layers 80 --quick         numbers repeat; made at the disk's speed

Weights have a deviation of 0.02 and norms are 1; deltas have 0.002, one entry in a hundred is ten times that, one
in ten exactly zero. Each tensor is seeded by its model and name, so every machine makes the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path

import ml_dtypes
import numpy as np

Shapes = dict[str, tuple[int, ...]]
Maker = Callable[[str, tuple[int, ...]], np.ndarray]
_BLOCK = 1 << 24


@dataclass(frozen=True)
class Shape:
    """The numbers of a Llama."""

    hidden: int
    inter: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int


PRESETS = {
    "xs": Shape(256, 704, 4, 4, 2, 4096),
    "s": Shape(1024, 2816, 8, 16, 4, 32000),
    "1b": Shape(2048, 5632, 22, 32, 4, 32000),
    "7b": Shape(4096, 11008, 32, 32, 32, 32000),
    "70b": Shape(8192, 28672, 80, 64, 8, 32000),
    "405b": Shape(16384, 53248, 126, 128, 8, 128256),
}


def tensor_shapes(size: Shape) -> Shapes:
    """Names and shapes of all tensors, in the order of the layers."""
    hidden, inter = size.hidden, size.inter
    kv = hidden // size.heads * size.kv_heads
    out: Shapes = {"model.embed_tokens.weight": (size.vocab, hidden)}
    for layer in range(size.layers):
        prefix = f"model.layers.{layer}."
        out |= {f"{prefix}{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")}
        out |= {f"{prefix}self_attn.{p}_proj.weight": (hidden if p in "qo" else kv, hidden) for p in "qkvo"}
        out |= {f"{prefix}mlp.{p}_proj.weight": (inter, hidden) for p in ("gate", "up")}
        out[f"{prefix}mlp.down_proj.weight"] = (hidden, inter)
    return out | {"model.norm.weight": (hidden,), "lm_head.weight": (size.vocab, hidden)}


def config(size: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": size.hidden,
        "intermediate_size": size.inter,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "vocab_size": size.vocab,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def generator(*key: str) -> np.random.Generator:
    seed = hashlib.sha256("/".join(key).encode()).digest()[:8]
    return np.random.default_rng(int.from_bytes(seed, "little"))


def base_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    return generator("base", name).standard_normal(shape, np.float32) * np.float32(0.02)


def expert_tensor(expert: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    draw = generator(expert, name)
    return base_tensor(name, shape) + _delta(draw, shape)


def _delta(draw: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    delta = draw.standard_normal(shape, np.float32) * np.float32(0.002)
    luck = draw.random(shape, np.float32)
    delta[luck < 0.01] *= 10
    delta[luck > 0.9] = 0
    return delta


@cache
def _block(what: str) -> np.ndarray:
    """One stretch of numbers, twice over, that quick tensors are cut from."""
    draw = generator("block", what)
    stretch = draw.standard_normal(_BLOCK, np.float32) * np.float32(0.02) if what == "base" else _delta(draw, (_BLOCK,))
    return np.concatenate([stretch, stretch])


def quick_tensor(model: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Like the others, but numbers repeat every 16 million; where in the stretch a tensor begins is seeded."""
    size = prod(shape)

    def cut(what: str) -> np.ndarray:
        start = int(generator(what, name).integers(_BLOCK))
        return np.resize(_block(what)[start : start + _BLOCK], size).reshape(shape)

    base = np.ones(shape, np.float32) if len(shape) == 1 else cut("base")
    return base if model == "base" else base + cut(model)


def write(folder: Path, size: Shape, make: Maker | None, shard_bytes: int) -> int:
    """Write one checkpoint; without `make` only the headers, in files that are as long as they say. Returns bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, shape in tensor_shapes(size).items():
        if filled + 2 * prod(shape) > shard_bytes and shards[-1]:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += 2 * prod(shape)
    index: dict[str, str] = {}
    total = 0
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        index |= dict.fromkeys((name for name, _ in shard), file)
        total += _write_shard(folder / file, shard, make)
    about = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(about))
    (folder / "config.json").write_text(json.dumps(config(size), indent=1))
    return total


def _write_shard(file: Path, shard: list[tuple[str, tuple[int, ...]]], make: Maker | None) -> int:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shard:
        stop = offset + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, stop]}
        offset = stop
    blob = json.dumps(header).encode()
    blob += b" " * (-len(blob) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(blob)) + blob)
        if make is None:
            out.truncate(8 + len(blob) + offset)
        else:
            for name, shape in shard:
                out.write(make(name, shape).astype(ml_dtypes.bfloat16).tobytes())
    return offset


def make_checkpoints(
    folder: Path,
    size: Shape,
    experts: int,
    *,
    sparse: bool = False,
    quick: bool = False,
    shard_bytes: int = 10**9,
) -> None:
    """Write base and experts under `folder`; a finished set is marked by a file `done` and left alone."""
    said = json.dumps([str(size), experts, sparse, quick, shard_bytes])
    if (folder / "done").is_file() and (folder / "done").read_text() == said:
        return

    def maker(model: str) -> Maker | None:
        if sparse:
            return None
        if quick:
            return lambda name, shape: quick_tensor(model, name, shape)
        return base_tensor if model == "base" else lambda name, shape: expert_tensor(model, name, shape)

    for model in ["base", *(f"expert{i}" for i in range(experts))]:
        total = write(folder / model, size, maker(model), shard_bytes)
        print(f"{folder / model}: {total / 1e9:.2f} GB", flush=True)
    (folder / "done").write_text(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", choices=PRESETS, default="1b")
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--layers", type=int, help="another number of layers")
    parser.add_argument("--shard-gb", type=float, default=1.0)
    parser.add_argument("--sparse", action="store_true", help="true headers and sizes, no data")
    parser.add_argument("--quick", action="store_true", help="numbers that repeat")
    options = parser.parse_args()
    numbers = vars(PRESETS[options.preset]) | ({"layers": options.layers} if options.layers else {})
    make_checkpoints(
        options.folder,
        Shape(**numbers),
        options.experts,
        sparse=options.sparse,
        quick=options.quick,
        shard_bytes=int(options.shard_gb * 1e9),
    )


if __name__ == "__main__":
    main()
