"""adapter_config.json of the merged adapter."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plait.adapters.merging.models import Models
from plait.adapters.merging.modules import Adapter, Joined
from plait.checkpoint import natural_key
from plait.planning.types import Step

__all__ = ["Settings", "adapter_config", "settings_of"]

_ALIKE = ("task_type", "revision")
_WHERE = ("layers_to_transform", "layers_pattern", "exclude_modules")


@dataclass(frozen=True)
class Settings:
    """What the config says, save for ranks."""

    base: str | None
    """base_model_name_or_path."""
    targets: tuple[str, ...] | None
    """target_modules of the adapters, where they say which modules are adapted; None to name each module."""
    saved: tuple[str, ...]
    """modules_to_save."""
    biases: str
    """peft's `bias`: none, all or lora_only."""
    fan_in_fan_out: bool
    lora_bias: bool
    alike: Mapping[str, Any]
    """What is the same in all adapters, and is kept."""


def settings_of(
    models: Models, joined: Sequence[Joined], whole: Sequence[Step], base_name: str | None
) -> tuple[Settings, list[str]]:
    """Gather what the adapters' configs say; and warnings of what differs."""
    adapters, warnings = models.adapters, []
    bases = {one.file.settings.base: one.reference for one in reversed(adapters) if one.file.settings.base}
    names = list(reversed(bases))
    if len(names) > 1 and base_name is None:
        told = " and ".join(f"{name} ({bases[name]})" for name in names[:4])
        warnings.append(f"The adapters are on different bases by name: {told}. The output is on {names[0]}.")
    alike: dict[str, Any] = {}
    for key in _ALIKE:
        values = list(dict.fromkeys(one.config.get(key) for one in adapters))
        alike[key] = values[0] if key == "task_type" or len(values) == 1 else None
        if len(values) > 1 and key == "task_type":
            told = ", ".join(f"{one.config.get(key)} ({one.reference})" for one in adapters[:4])
            warnings.append(f"The adapters' task_type differs: {told}. The output's is {values[0]}.")
    turned = [one.file.settings.transposed for one in adapters]
    if len(set(turned)) > 1:
        warnings.append("fan_in_fan_out is true in some adapters alone; it is true in the output.")
    kept = {step.name for step in whole}
    stated = {str(one.config.get("bias") or "none") for one in adapters if _has_biases(one, kept)}
    settings = Settings(
        base_name or (names[0] if names else None),
        _targets(models, joined),
        tuple(sorted(_saved(adapters, kept))),
        "none" if not stated - {"none"} else "all" if "all" in stated else "lora_only",
        any(turned),
        any(one.biased for one in joined),
        alike
        | ({"ensure_weight_tying": True} if any(one.config.get("ensure_weight_tying") for one in adapters) else {}),
    )
    return settings, warnings


def _has_biases(adapter: Adapter, kept: Iterable[str]) -> bool:
    return any(name.endswith(".bias") and name in adapter.whole for name in kept)


def _saved(adapters: Sequence[Adapter], kept: Iterable[str]) -> set[str]:
    """The entries of modules_to_save that hold a tensor which is saved."""
    stated = {str(name) for one in adapters for name in one.config.get("modules_to_save") or ()}
    inside = {name: name.rpartition(".")[0] for name in kept}
    return {entry for entry in stated if any(_holds(entry, module) for module in inside.values())}


def _holds(entry: str, module: str) -> bool:
    segments = module.split(".")
    ancestors = (".".join(segments[:count]) for count in range(1, len(segments) + 1))
    return any(one == entry or one.endswith(f".{entry}") for one in ancestors)


def _targets(models: Models, joined: Sequence[Joined]) -> tuple[str, ...] | None:
    """The adapters' own lists together, where these name every module and no other that is known of."""
    if len(joined) < len(models.joined) or any(one.config.get(key) for one in models.adapters for key in _WHERE):
        return None
    lists = [one.config.get("target_modules") for one in models.adapters]
    if not all(isinstance(entry, list) for entry in lists):
        return None
    names = sorted({str(name) for entry in lists for name in entry or ()})
    known = {one.name for one in joined}
    if not all(any(_ends(module, name) for name in names) for module in known):
        return None
    others = {name.rpartition(".")[0] for one in models.adapters for name in one.whole} | {
        name.rpartition(".")[0] for name in (models.base.tensors if models.base else ())
    }
    clash = any(_ends(module, name) for module in others - known for name in names)
    return None if clash else tuple(names)


def _ends(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


def adapter_config(settings: Settings, ranks: Mapping[str, int]) -> dict[str, Any]:
    """Make the content of adapter_config.json; alpha is the rank everywhere, so that peft scales by 1.

    >>> made = Settings("org/base", ("q",), (), "none", False, False, {})
    >>> adapter_config(made, {"a.0.q": 4, "a.1.q": 4, "a.2.q": 2})["rank_pattern"]
    {'a.2.q': 2}
    """
    rank = Counter(sorted(ranks.values(), reverse=True)).most_common(1)[0][0]
    others = _pattern(ranks, rank)
    return {
        "alpha_pattern": others,
        "base_model_name_or_path": settings.base,
        "bias": settings.biases,
        "fan_in_fan_out": settings.fan_in_fan_out,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": list(settings.saved) or None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": others,
        "target_modules": list(settings.targets or sorted(ranks, key=natural_key)),
        "use_dora": False,
        "use_rslora": False,
        **({"lora_bias": True} if settings.lora_bias else {}),  # (peft before 0.14 does not know the key)
        **{key: value for key, value in settings.alike.items() if value is not None or key == "task_type"},
    }


def _pattern(ranks: Mapping[str, int], usual: int) -> dict[str, int]:
    """Name the modules of another rank: peft takes the first key with which a module's name ends, at a dot."""
    odd = {name for name, rank in ranks.items() if rank != usual}
    # A module of the usual rank whose name ends like one of another must be named, too.
    odd |= {name for name in ranks if any(name.endswith(f".{other}") for other in odd)}
    # (Dots in a key match anything, so the longest name comes first.)
    return {re.escape(name) if not _plain(name) else name: ranks[name] for name in sorted(odd, key=_longest)}


def _plain(name: str) -> bool:
    return re.fullmatch(r"[\w.]+", name) is not None


def _longest(name: str) -> tuple[int, str]:
    return -len(name), name
