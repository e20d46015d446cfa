"""adapter_config.json: what kind of adapter it is, with which rank and scaling for each module."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plait.checkpoint.config import read_json
from plait.errors import CheckpointError

__all__ = ["LoraSettings", "read_settings"]

# Kinds of LoRA that are more than W + s B A, by the key that turns them on.
_REFUSED = {
    "alora_invocation_tokens": "activated LoRA, which holds for some tokens only and cannot be in the weights",
    "arrow_config": "an Arrow router over several adapters",
    "kasa_config": "KaSA",
    "layer_replication": "layers replicated for the adapter",
    "monteclora_config": "MonteCLoRA",
    "target_parameters": "LoRA on parameters that are no module's weight (target_parameters), such as fused experts",
    "trainable_token_indices": "single trained token rows (trainable_token_indices)",
    "use_bdlora": "BD-LoRA",
    "use_qalora": "QA-LoRA",
}
# They start from a base that is changed when the adapter is put on it, by a decomposition of its weights or data.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga", "milora")


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """What of the config decides the weights."""

    file: str
    base: str | None
    """base_model_name_or_path."""
    revision: str | None
    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    dora: bool
    transposed: bool
    """fan_in_fan_out."""
    ties: bool = False
    """ensure_weight_tying: a head that the base ties stays tied, whatever the adapter has for either end."""

    def rank_of(self, module: str) -> int:
        """Rank of a module; an entry of `rank_pattern` counts when its whole text is the end of the module's name."""
        return self.rank_pattern.get(_entry(self.rank_pattern, module), self.rank)

    def scaling(self, module: str) -> float:
        """Return alpha / rank, or alpha / sqrt(rank) for rsLoRA (Kalajdzievski 2023, <https://arxiv.org/abs/2312.03732>)."""
        rank = self.rank_of(module)
        alpha = self.alpha_pattern.get(_entry(self.alpha_pattern, module), self.alpha)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def _entry(patterns: Mapping[str, Any], module: str) -> str:
    """Find the first pattern (a regular expression) that a module's name ends with, at a dot."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), "")


def read_settings(file: str) -> LoraSettings:
    """Read an adapter's config at the path `file`.

    Raises:
        CheckpointError: it is of a kind that cannot be read as weights, said by name, or it is malformed.
    """
    config = read_json(file)
    kind = config.get("peft_type")
    if kind != "LORA":
        named = f"a {kind} adapter" if isinstance(kind, str) and kind else "an adapter that does not say its peft_type"
        raise CheckpointError(
            f"{file}: {named}. plait reads LoRA adapters (LoRA, rsLoRA, DoRA). Merge it with peft (merge_and_unload), "
            "where that can be done, and name the folder that it saves."
        )
    for key, what in _REFUSED.items():
        if config.get(key):
            raise CheckpointError(f"{file}: {what}: not read. Merge it with peft (merge_and_unload), where it can.")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        raise CheckpointError(
            f"{file}: init_lora_weights is {start!r}: the adapter belongs on a base that was changed at its start, not on "
            "the base as it is stored. Save it from peft with path_initial_model_for_weight_conversion, which makes a "
            "plain LoRA of it."
        )
    return _settings(file, config)


def _settings(file: str, config: Mapping[str, Any]) -> LoraSettings:
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    return LoraSettings(
        file=file,
        base=base if isinstance(base, str) and base else None,
        revision=revision if isinstance(revision, str) and revision else None,
        rank=_rank(file, "r", config.get("r", 8)),
        alpha=_number(file, "lora_alpha", config.get("lora_alpha", 8)),
        rank_pattern={
            key: _rank(file, "rank_pattern", value) for key, value in _patterns(file, config, "rank_pattern")
        },
        alpha_pattern={
            key: _number(file, "alpha_pattern", value) for key, value in _patterns(file, config, "alpha_pattern")
        },
        rslora=bool(config.get("use_rslora")),
        dora=bool(config.get("use_dora")),
        transposed=bool(config.get("fan_in_fan_out")),
        ties=bool(config.get("ensure_weight_tying")),
    )


def _patterns(file: str, config: Mapping[str, Any], key: str) -> Sequence[tuple[str, Any]]:
    given = config.get(key) or {}
    if not isinstance(given, dict):
        raise CheckpointError(f"{file}: {key} must be a mapping from names to numbers, not {type(given).__name__}.")
    try:
        for pattern in given:
            re.compile(rf"(.*\.)?({pattern})$")
    except re.error as error:
        raise CheckpointError(f"{file}: {key}: {error.pattern!a} is no regular expression: {error}.") from None
    return list(given.items())


def _rank(file: str, key: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise CheckpointError(f"{file}: {key}: a rank must be a whole number from 1 on, not {value!a}.")
    return value


def _number(file: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise CheckpointError(f"{file}: {key} must be a finite number, not {value!a}.")
    return float(value)
