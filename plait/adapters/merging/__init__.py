"""Adapters merged into an adapter."""

from plait.adapters.merging.plan import AdapterPlan, plan_adapter
from plait.adapters.merging.report import AdapterMerge
from plait.adapters.merging.run import Work, merge_adapters

__all__ = ["AdapterMerge", "AdapterPlan", "Work", "merge_adapters", "plan_adapter"]
