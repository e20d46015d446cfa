"""Whether a checkpoint is quantised, told from its config and from the names beside its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from plait.checkpoint.types import Checkpoint, StoredTensor

__all__ = ["quantisation"]

_Tensors = Mapping[str, StoredTensor]


def quantisation(checkpoint: Checkpoint) -> str | None:
    """Name the quantisation scheme and how it is known; None for a checkpoint that is not quantised.

    For example "fp8 (quantization_config, 24 *.weight_scale_inv)". A config alone is told as "no companion tensors":
    it may be left over from a merge that lost them.
    """
    method = _from_config(checkpoint.config or {})
    counts: dict[str, int] = {}
    schemes: dict[str, None] = {}
    for name, tensor in checkpoint.tensors.items():
        for suffix, recognise in _COMPANIONS.items():
            if name.endswith(suffix) and (scheme := recognise(checkpoint.tensors, name, tensor)):
                counts[suffix] = counts.get(suffix, 0) + 1
                schemes.setdefault(scheme)
    if method is None and not schemes:
        return None
    signs = ["quantization_config"] * (method is not None) + [
        f"{count} *{'' if suffix.startswith('_') else '.'}{suffix.lstrip('.')}" for suffix, count in counts.items()
    ]
    if not schemes:
        signs.append("no companion tensors")
    return f"{method or ' or '.join(schemes)} ({', '.join(signs)})"


def _from_config(config: Mapping[str, Any]) -> str | None:
    """Find quant_method, in the config or in that of a part (`text_config` of a vision model)."""
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        settings = part.get("quantization_config") or part.get("compression_config")
        if isinstance(settings, dict):
            method = str(settings.get("quant_method") or "unnamed")
            if method == "bitsandbytes":
                return "bitsandbytes " + ("int8" if settings.get("load_in_8bit") else "4-bit")
            return method
    return None


def _scaled(tensors: _Tensors, name: str, _: StoredTensor) -> str | None:
    stem = name.rpartition(".weight_scale")[0]
    if weight := tensors.get(f"{stem}.weight"):
        return {"F8_E4M3": "fp8", "F8_E5M2": "fp8", "I8": "int8"}.get(weight.dtype, "scaled weights")
    return "packed weights" if f"{stem}.weight_packed" in tensors else None


def _gptq_or_awq(tensors: _Tensors, name: str, _: StoredTensor) -> str | None:
    stem = name.removesuffix(".qweight")
    if f"{stem}.scales" not in tensors:
        return None
    return "gptq" if f"{stem}.g_idx" in tensors else "gptq or awq"


def _bnb_4bit(tensors: _Tensors, name: str, _: StoredTensor) -> str | None:
    return "bitsandbytes 4-bit" if name.removesuffix(".absmax") + ".quant_map" in tensors else None


def _bnb_int8(tensors: _Tensors, name: str, _: StoredTensor) -> str | None:
    return "bitsandbytes int8" if name.removesuffix("SCB") + "weight" in tensors else None


def _mxfp4(tensors: _Tensors, name: str, tensor: StoredTensor) -> str | None:
    beside = tensors.get(name.removesuffix("_blocks") + "_scales")
    return "mxfp4" if beside and tensor.dtype == "U8" and beside.dtype in {"U8", "F8_E8M0"} else None


_COMPANIONS: dict[str, Callable[[_Tensors, str, StoredTensor], str | None]] = {
    ".weight_scale_inv": _scaled,
    ".weight_scale": _scaled,
    ".qweight": _gptq_or_awq,
    ".absmax": _bnb_4bit,
    ".SCB": _bnb_int8,
    "_blocks": _mxfp4,
}
