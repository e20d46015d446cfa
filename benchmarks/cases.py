"""The merges that are measured: for each its recipe, what it must read, and whether mergekit has it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

__all__ = ["CASES", "EXPERTS", "WEIGHTS", "Case"]

EXPERTS = ("expert0", "expert1", "expert2")


@dataclass(frozen=True)
class Case:
    """One row of the table. Numbers are per model, in the order of `models`."""

    title: str
    method: str
    models: Sequence[str] = EXPERTS
    base: str | None = None
    weights: Sequence[float] = ()
    density: float | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    plait_only: Mapping[str, object] = field(default_factory=dict)
    """Settings that mergekit does not have: then only plait is measured."""
    mergekit: bool = True
    """Whether mergekit has the method."""

    @property
    def reads(self) -> list[str]:
        """The checkpoints that every implementation must read from end to end."""
        return list(dict.fromkeys([*([self.base] if self.base else []), *self.models]))

    @property
    def in_mergekit(self) -> bool:
        return self.mergekit and not self.plait_only

    @property
    def random(self) -> bool:
        """Whether the result depends on a seed."""
        return self.method.startswith(("dare_", "della"))

    def recipe(self, data: Path, *, seed: int | None = None) -> str:
        """The recipe as YAML; `seed` is plait's key, mergekit takes its own on the command line."""
        models = []
        for i, name in enumerate(self.models):
            entry: dict[str, object] = {"model": str(data / name)}
            own = {"weight": self.weights[i]} if self.weights else {}
            if self.density is not None:
                own["density"] = self.density
            models.append(entry | ({"parameters": own} if own else {}))
        whole: dict[str, object] = {"merge_method": self.method, "models": models, "dtype": "bfloat16"}
        if self.base:
            whole["base_model"] = str(data / self.base)
        if settings := {**self.settings, **self.plait_only}:
            whole["parameters"] = settings
        if seed is not None:
            whole["seed"] = seed
        return yaml.safe_dump(whole, sort_keys=False)


# Weights of many digits: with 0.5, 0.3 and 0.2 many exact results lie half way between two bfloat16 numbers, where
# the float64 reference itself rounds by chance.
WEIGHTS = (0.43712, 0.33057, 0.28391)

CASES = {
    "linear": Case("linear", "linear", weights=WEIGHTS),
    "task_arithmetic": Case("task arithmetic", "task_arithmetic", base="base", weights=WEIGHTS),
    "slerp": Case("SLERP", "slerp", models=EXPERTS[:2], base="expert0", settings={"t": 0.41327}),
    "ties": Case("TIES", "ties", base="base", weights=(1.0, 1.0, 1.0), density=0.5),
    "ties_model": Case(
        "TIES, ranked over the model",
        "ties",
        base="base",
        weights=(1.0, 1.0, 1.0),
        density=0.5,
        plait_only={"scope": "model"},
    ),
    "dare_ties": Case("DARE-TIES", "dare_ties", base="base", weights=WEIGHTS, density=0.5),
    "model_stock": Case("Model Stock", "model_stock", base="base"),
    "karcher": Case("Karcher mean", "karcher"),
}
