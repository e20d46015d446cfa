"""A merge for every method of the library: as many of three experts as it takes, on the base, realistic parameters."""

from __future__ import annotations

from typing import Any

from cases import EXPERTS, WEIGHTS, Case

from plait.methods import Method, find_method, method_names

__all__ = ["bar", "library_cases", "locality", "words"]

DENSITY = 0.3
"""What sparse methods keep that keep everything by default; the others have their paper's density as default."""

SETTINGS: dict[str, dict[str, object]] = {
    "emr": {"task": 1},  # task 0 measures nothing
    "nearswap": {"t": 0.0001},
    "sce": {"select_topk": 0.1},
    "slerp": {"t": 0.41327},
    "tall_masks": {"task": 1},  # task 0 is task arithmetic
}
"""What is set beside weights and density."""

MERGEKIT = frozenset(
    {"arcee_fusion", "breadcrumbs", "breadcrumbs_ties", "dare_linear", "dare_ties", "della", "della_linear", "karcher"}
    | {"linear", "model_stock", "multislerp", "nearswap", "nuslerp", "passthrough", "ram", "ramplus_tl", "sce"}
    | {"slerp", "task_arithmetic", "ties"}
)
"""The methods of mergekit 0.1.5, which have the same names in plait."""

BARS = {"element": 1.6, "span": 1.6, "measured": 1.6, "row": 2.5}
"""The most that a method of each locality may take, in copy limits."""


def library_cases() -> dict[str, Case]:
    return {name: case(find_method(name)) for name in method_names()}


def case(method: Method) -> Case:
    """Build the method's case from its signature, so that a new method has one too."""
    own = method.base == "first"  # the base is one of the models
    most = len(EXPERTS) + own
    count = min(method.max_models or most, most)
    models = (*["base"] * own, *EXPERTS)[:count]
    required = method.parameters.keys() - method.defaults.keys()
    sparse = "density" in method.parameters and method.defaults.get("density", 1.0) == 1.0
    return Case(
        f"`{method.name}`",
        method.name,
        models=models,
        base="base" if method.base in {"required", "first"} else None,
        weights=WEIGHTS[:count] if "weight" in required else (),
        density=DENSITY if sparse else None,
        settings=SETTINGS.get(method.name, {}),
        mergekit=method.name in MERGEKIT,
    )


def words(case: Case) -> str:
    """Say in short what is merged: number of models, whether on a base, and what is set, weights apart."""
    experts = [model for model in case.models if model != case.base]
    told = [f"{len(experts)} on a base" if case.base else f"{len(experts)}"]
    density = {"density": case.density} if case.density is not None else {}
    told += [f"{key} {value:g}" for key, value in {**density, **case.settings}.items()]
    return ", ".join(told)


def locality(case: Case) -> str:
    """The locality of the form of the method that the case's parameters ask for."""
    method = find_method(case.method)
    values: dict[str, Any] = {**method.defaults, **case.settings}
    return method.chosen(values).locality


def bar(case: Case) -> float | None:
    """The most copy limits that it may take; None where nothing is promised."""
    return BARS.get(locality(case))
