"""Plans and results as commands print them: an adapter's has its ranks besides."""

from __future__ import annotations

import json

from plait.cli.progress import closing_line
from plait.engine.run import MergeResult
from plait.planning import render
from plait.planning.types import Plan

__all__ = ["plan_as_json", "plan_as_text", "result_as_text"]


def plan_as_text(plan: Plan, threads: int | None = None, *, every: bool = False) -> str:
    """Return the plan as a reader wants it."""
    text = render.plan_as_text(plan, threads, every=every)
    if plan.recipe.adapter is None:
        return text
    from plait.adapters.merging import AdapterPlan, report

    return text + "\n" + report.plan_as_text(plan) if isinstance(plan, AdapterPlan) else text


def plan_as_json(plan: Plan, threads: int | None = None) -> str:
    """Return the whole plan as JSON."""
    text = render.plan_as_json(plan, threads)
    if plan.recipe.adapter is None:
        return text
    from plait.adapters.merging import AdapterPlan, report

    more = {"adapter": report.plan_as_data(plan)} if isinstance(plan, AdapterPlan) else {}
    return json.dumps(json.loads(text) | more, indent=1, ensure_ascii=False)


def result_as_text(result: MergeResult) -> str:
    """Say what was written; of an adapter, the rank and error of each module."""
    if result.plan.recipe.adapter is None:
        return closing_line(result)
    from plait.adapters.merging import AdapterMerge, report

    return report.result_as_text(result) if isinstance(result, AdapterMerge) else closing_line(result)
