"""Rotary positions: what a GGUF file says of them in its metadata and in small tensors of factors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from plait.checkpoint.gguf.header import Header
from plait.errors import CheckpointError

__all__ = ["LONG", "ONE", "ROPE_TENSORS", "SHORT", "llama3_factors", "rope_settings"]

ONE, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
ROPE_TENSORS = (ONE, LONG, SHORT)
"""Tensors that are settings: they go into config.json, not among the weights."""
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LENGTHS = (8192, *(1 << bits for bits in range(8, 18)))  # of the text before it was stretched
Factors = npt.NDArray[np.float32]


def rope_settings(
    header: Header, architecture: str, config: Mapping[str, Any], factors: Mapping[str, Factors]
) -> dict[str, Any]:
    """Return rope_scaling and partial_rotary_factor, where the file has such.

    Llama 3's scaling is stored as its factors alone. They are explained by the settings that all of Llama 3.1 to 3.3
    have, but for the length; they must come out the same in five digits.

    Raises:
        CheckpointError: a kind of scaling that is not known, or factors that those settings do not explain.
    """
    size = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    turned = header.number(f"{architecture}.rope.dimension_count", size)
    found: dict[str, Any] = {}
    if turned != size:
        if architecture != "phi3":
            raise CheckpointError(f"{header.file}: {turned} of {size} dimensions are rotary; {architecture} has all.")
        found["partial_rotary_factor"] = turned / size
    scaling = _scaling(header, architecture, config, factors, turned)
    return found | ({"rope_scaling": scaling} if scaling else {})


def _scaling(
    header: Header, architecture: str, config: Mapping[str, Any], factors: Mapping[str, Factors], size: int
) -> dict[str, Any] | None:
    if ONE in factors:
        return _llama3(header, config, factors[ONE], size)
    if LONG in factors and SHORT in factors:
        short, long = (_shortest(factors[name]) for name in (SHORT, LONG))
        return {"rope_type": "longrope", "type": "longrope", "short_factor": short, "long_factor": long}
    prefix = f"{architecture}.rope.scaling"
    kind = header.values.get(f"{prefix}.type", "none")
    factor = header.number(f"{prefix}.factor")
    if kind == "linear" and factor:
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn" and factor:
        length = header.number(f"{prefix}.original_context_length")
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": length}
    if kind in {"none", "linear", "yarn", "longrope"} and not factor:
        return None
    raise CheckpointError(f"{header.file}: rope scaling of kind {kind!r} (factor {factor}) is not read from GGUF.")


def _shortest(values: Factors) -> list[float]:
    """Write float32 numbers as the shortest decimals that give them."""
    return [float(str(value)) for value in values]


def _llama3(header: Header, config: Mapping[str, Any], stored: Factors, size: int) -> dict[str, Any]:
    theta = config.get("rope_theta", 10000.0)
    for length in _LENGTHS if stored.shape == (size // 2,) else ():
        settings = {"rope_type": "llama3", "factor": float(str(stored.max())), **_LLAMA3}
        settings["original_max_position_embeddings"] = length
        expected = llama3_factors(theta, size, settings)
        if np.allclose(stored, expected, rtol=1e-5, atol=0):
            return settings
    raise CheckpointError(
        f"{header.file}: {ONE} are not the factors of Llama 3's rope scaling, and no other kind is known to have them. "
        "Put the original model's config.json beside the file."
    )


def llama3_factors(theta: float, size: int, settings: Mapping[str, Any]) -> Factors:
    """Compute what the inverse frequencies of `size` rotary dimensions are divided by, `[size / 2]`.

    Source: transformers' `_compute_llama3_parameters`.
    """
    factor, low, high = (float(settings[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    length = settings["original_max_position_embeddings"]
    waves = 2 * math.pi * theta ** (np.arange(0, size, 2, dtype=np.float64) / size)
    smooth = (length / waves - low) / (high - low)
    with np.errstate(divide="ignore"):  # outside of where it is used
        between = 1 / ((1 - smooth) / factor + smooth)
    found = np.where(waves < length / high, 1.0, np.where(waves > length / low, factor, between))
    return found.astype(np.float32)
