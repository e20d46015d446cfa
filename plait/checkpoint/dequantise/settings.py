"""What a config says of its quantisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from plait.dtypes import dtype_by_name

__all__ = ["Settings", "plain_config", "settings_of"]

_KEYS = ("quantization_config", "compression_config")
_READ: dict[str, tuple[str, frozenset[str]]] = {
    "": ("", frozenset()),
    "fp8": ("", frozenset()),
    "fbgemm_fp8": ("", frozenset()),
    "mxfp4": ("", frozenset()),
    "bitsandbytes": ("", frozenset()),
    "gptq": ("checkpoint_format", frozenset({"gptq", "gptq_v2"})),
    "awq": ("version", frozenset({"gemm"})),
    "compressed-tensors": (
        "format",
        frozenset({"float-quantized", "int-quantized", "naive-quantized", "pack-quantized", "dense"}),
    ),
}
"""quant_method -> the key that names its variant, and the variants that are read."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The parts of `quantization_config` that decide how weights are read."""

    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "BF16"
    """Code of the element type that the weights are made in: the config's, or bfloat16."""

    def refused(self) -> str:
        """Say why this format is not read; "" where it is."""
        if self.method not in _READ:
            return f"the format {self.method!r} is not read"
        key, known = _READ[self.method]
        given = self.options.get(key)
        if given is not None and str(given).lower() not in known:
            return f"{self.method} with {key} {given!r} is not read, only {', '.join(sorted(known))}"
        if (self.options.get("sparsity_config") or {}).get("format", "dense") != "dense":
            return f"{self.method} with compressed sparsity is not read"
        if (self.options.get("transform_config") or {}).get("config_groups"):
            return f"{self.method} with transforms of the weights (transform_config) is not read"
        return ""

    @property
    def block(self) -> tuple[int | None, int | None]:
        """Rows and columns that share a scale, as far as the config says."""
        rows, columns = self.options.get("weight_block_size") or (None, None)
        for weights in self._groups():
            rows, columns = weights.get("block_structure") or (rows, columns)
            if _positive(weights.get("group_size")):
                columns = weights["group_size"]
        group = self.options.get("group_size")
        return rows, columns or (group if _positive(group) else None)

    @property
    def bits(self) -> tuple[int, ...]:
        """Bits of a weight, as far as the config says; several where parts of the model differ."""
        found = [self.options.get("bits"), *(weights.get("num_bits") for weights in self._groups())]
        return tuple(dict.fromkeys(bits for bits in found if isinstance(bits, int)))

    def _groups(self) -> Iterator[Mapping[str, Any]]:
        groups = self.options.get("config_groups") or {}
        for group in groups.values() if isinstance(groups, Mapping) else ():
            if isinstance(group, Mapping) and isinstance(group.get("weights"), Mapping):
                yield group["weights"]


def settings_of(config: Mapping[str, Any] | None) -> Settings:
    """Read the settings from a config.json, or from that of its part that has some."""
    parts = _parts(config or {})
    stated = (part.get(key) for part in parts for key in ("dtype", "torch_dtype"))
    named = next((dtype_by_name(name) for name in stated if isinstance(name, str)), None)
    dtype = named.code if named and named.code in {"BF16", "F16", "F32"} else "BF16"
    for part in parts:
        for key in _KEYS:
            if isinstance(part.get(key), Mapping):
                return Settings(str(part[key].get("quant_method") or "unnamed"), part[key], dtype)
    return Settings(dtype=dtype)


def plain_config(config: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Leave out what says that the weights are quantised, at the top and one level down."""
    if config is None:
        return None
    plain = {key: value for key, value in config.items() if key not in _KEYS}
    return {
        key: {k: v for k, v in value.items() if k not in _KEYS} if isinstance(value, Mapping) else value
        for key, value in plain.items()
    }


def _parts(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [config, *(value for key, value in config.items() if isinstance(value, Mapping) and key not in _KEYS)]


def _positive(value: Any) -> bool:
    return isinstance(value, int) and value > 0
