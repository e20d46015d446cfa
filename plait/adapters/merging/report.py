"""What merging adapters came to, and the output's card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from plait.adapters.merging.plan import AdapterPlan
from plait.adapters.report import ModuleRank
from plait.engine.run import MergeResult
from plait.hub.library import is_hub_id
from plait.output.card import licences
from plait.output.names import neutral_names, neutral_text
from plait.planning.types import Model, Plan

__all__ = ["AdapterMerge", "card_of", "plan_as_data", "plan_as_text", "result_as_text"]


@dataclass(frozen=True, kw_only=True)
class AdapterMerge(MergeResult):
    """A merge whose output is an adapter."""

    modules: tuple[ModuleRank, ...]
    """Rank and relative error of each module, in natural order."""
    left_out: tuple[str, ...] = ()
    """Modules whose merged change is zero."""
    nbytes: int = 0
    """Bytes of the adapter's weights file."""

    @property
    def error(self) -> float:
        """Relative error of all modules together, as one vector."""
        whole = sum(module.norm**2 for module in self.modules)
        lost = sum((module.error * module.norm) ** 2 for module in self.modules)
        return float((lost / whole) ** 0.5) if whole else 0.0


def result_as_text(made: AdapterMerge) -> str:
    """Say the rank and the relative error of each module, and what there is besides."""
    wide = max(len(one.module) for one in made.modules)
    plan = made.plan
    lines = [f"{'module':{wide}}  rank  {_measured(plan)}"]
    lines += [f"{one.module:{wide}}  {one.rank:4}  {_error(one.error)}" for one in made.modules]
    if isinstance(plan, AdapterPlan):
        lines += [f"saved whole: {step.name}" for step in plan.whole]
    lines += [f"left out: {name} (the merged change is zero)" for name in made.left_out]
    count = len(made.modules)
    lines.append(
        f"{made.path}: {count} module{'s' if count != 1 else ''}, total {_measured(plan)} {_error(made.error)}, "
        f"{made.nbytes / 1e6:.2f} MB, {made.seconds:.1f} s"
    )
    return "\n".join(lines)


def _measured(plan: Plan) -> str:
    """What the error is one of: clusters are not meant to come near the mean, but are told by their distance from it."""
    spec = plan.recipe.adapter
    return "distance from the mean" if spec and spec.clusters else "relative error"


def _error(error: float) -> str:
    return f"{error:.3e}" if error else "0 (nothing left out)"


def plan_as_text(plan: AdapterPlan) -> str:
    """Say what the output adapter will be: how factors are made, and with which ranks."""
    spec = plan.spec
    lines = ["", f"Adapter, on {plan.settings.base or 'a base that is not named'}"]
    lines.append(
        f"  keeps: {_measure(plan)}; {'rank' if spec.rank or spec.clusters or spec.exact else 'rank at most'}:"
    )
    groups: dict[str, list[str]] = {}
    for one in plan.makings:
        ranks = " + ".join(str(part.rank) for part in one.joined.parts)
        low, high = plan.rank(one), ("adapters' factors beside each other" if one.how == "beside" else one.how)
        groups.setdefault(f"{ranks} -> {low}, {_HOW.get(high, high)}", []).append(one.joined.name)
    for text, names in groups.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"  {names[0]}{more}: {text}")
    if plan.whole:
        lines.append(f"  saved whole: {', '.join(step.name for step in plan.whole)}")
    return "\n".join(lines)


_HOW = {
    "sum": "singular vectors of the sum",
    "core": "singular vectors of the merged core",
    "clusters": "means of clusters of units",
}


def _measure(plan: AdapterPlan) -> str:
    spec = plan.spec
    if spec.exact:
        return "everything"
    if spec.clusters:
        return f"the means of {spec.clusters} clusters"
    if spec.rank:
        return f"{spec.rank} singular values"
    return f"energy {spec.energy}" if spec.energy is not None else f"all but an error of {spec.error}"


def plan_as_data(plan: AdapterPlan) -> dict[str, Any]:
    """Return the same as plain data."""
    return {
        "base": plan.settings.base,
        "keeps": _measure(plan),
        "modules": [
            {
                "module": one.joined.name,
                "ranks": {plan.models[part.model].reference: part.rank for part in one.joined.parts},
                "rank_at_most": plan.rank(one),
                "how": one.how,
            }
            for one in plan.makings
        ],
        "saved": [step.name for step in plan.whole],
    }


def card_of(plan: AdapterPlan, name: str, modules: tuple[ModuleRank, ...], read: tuple[Model, ...]) -> str:
    """Write README.md: front matter that hubs read, parents, ranks and errors, the recipe."""
    names = neutral_names(read)
    stated, warning = licences(read)
    base = plan.settings.base
    front: dict[str, Any] = {"base_model": base} if base and is_hub_id(base) else {}
    known = {licence for licence in stated.values() if licence}
    if len(known) == 1 and all(stated.values()):
        front["license"] = next(iter(known))
    front |= {"library_name": "peft", "tags": ["lora", "merge", "plait", plan.recipe.merge_method]}
    lines = ["---", yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(), "---", f"# {name}", ""]
    lines += ["A LoRA adapter merged from adapters, made with plait.", "", "## Adapters", ""]
    lines += [f"- `{names[model.reference]}`: licence {stated[model.reference] or 'not stated'}" for model in read]
    lines += ["", *([f"> {warning}", ""] if warning else [])]
    lines += ["## Modules", "", f"| module | rank | {_measured(plan)} |", "|---|---|---|"]
    lines += [f"| {one.module} | {one.rank} | {one.error:.3g} |" for one in modules]
    if plan.whole:
        lines += ["", "Saved whole: " + ", ".join(step.name for step in plan.whole) + "."]
    recipe = neutral_text(plan.recipe.text, read).rstrip()
    lines += ["", "## Recipe", "", "```yaml", recipe, "```", ""]
    lines += ["`plait merge plait.lock OUT` makes the same bytes again from the same inputs.", ""]
    return "\n".join(lines)
