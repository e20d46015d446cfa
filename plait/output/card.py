"""The model card: README.md of the output, with the front matter that the Hub reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from plait.output.names import neutral_names, neutral_text, piece_names
from plait.planning.matching import expert_orders
from plait.planning.types import Model, Plan

__all__ = ["card", "licence_of", "licences"]

_RESTRICTED = ("nc", "non-commercial", "noncommercial", "sa", "research", "llama", "gemma", "other", "unknown")
_COUNTED = 12


def licence_of(model: Model) -> str | None:
    """Read the licence that a model's own card states in its front matter, or None; its adapters' as well."""
    if model.stage:
        return None
    folder = model.path if model.path.is_dir() else model.path.parent
    stated = [_stated_licence(one / "README.md") for one in (folder, *model.adapters)]
    return ", ".join(dict.fromkeys(one for one in stated if one)) or None


def _stated_licence(readme: Path) -> str | None:
    if not readme.is_file():
        return None
    text = readme.read_text(encoding="utf-8", errors="replace")
    found = re.match(r"---[^\S\n]*\r?\n(.*?)\r?\n---\s*(\n|$)", text, re.DOTALL)
    if not found:
        return None
    try:
        front = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError):
        return None
    stated = front.get("license") if isinstance(front, dict) else None
    if isinstance(stated, list):
        return ", ".join(str(one) for one in stated)
    return str(stated) if stated else None


def licences(models: Sequence[Model]) -> tuple[dict[str, str | None], str]:
    """Return each parent's licence, by reference, and one warning, "" when nothing is in the way of sharing."""
    stated = {model.reference: licence_of(model) for model in models if not model.stage}
    names = neutral_names(models)
    different = sorted({licence for licence in stated.values() if licence})
    limits = [licence for licence in different if _is_restricted(licence)]
    unknown = [names[reference] for reference, licence in stated.items() if licence is None]
    parts = []
    if len(different) > 1:
        parts.append(f"the parents have different licences ({', '.join(different)})")
    if limits:
        parts.append(f"some restrict use or sharing ({', '.join(limits)})")
    if unknown and different:
        parts.append(f"none is stated by {', '.join(unknown)}")
    return stated, (f"Licences: {'; '.join(parts)}. Check them before you share the merge." if parts else "")


def _is_restricted(licence: str) -> bool:
    words = re.split(r"[^a-z]+", licence.lower())
    return any(word in words or (len(word) > 4 and word in licence.lower()) for word in _RESTRICTED)


def card(plan: Plan, name: str) -> str:
    """Write the card: parents, methods, parameters, recipe. The same merge writes the same card."""
    stored = [model for model in plan.models if not model.stage]
    names = neutral_names(plan.models)
    stated, warning = licences(plan.models)
    lines = ["---", _front_matter(plan, _parents(stored), stated), "---", f"# {name}", ""]
    lines += ["A merge of model checkpoints, made with plait.", "", "## Models", ""]
    for model in stored:
        licence = stated[model.reference] or "not stated"
        lines.append(f"- `{names[model.reference]}`{_role(plan, model)}: licence {licence}")
    lines += ["", *([f"> {warning}", ""] if warning else [])]
    lines += ["## Tensors", "", *(f"- {text}" for text in _tally(plan, names)), "", "## Recipe", ""]
    recipe = neutral_text(plan.recipe.text, plan.models).rstrip()
    longest = max((len(ticks) for ticks in re.findall(r"`{3,}", recipe)), default=2)
    fence = "`" * (longest + 1)
    lines += [f"{fence}yaml", recipe, fence, ""]
    lines += ["`plait merge plait.lock OUT` makes the same bytes again from the same inputs.", ""]
    return "\n".join(lines)


def _parents(stored: Sequence[Model]) -> list[str]:
    """The models and adapters that the merge is made from, by name."""
    names = piece_names(stored)
    return list(dict.fromkeys(names[text] for model in stored for text, _ in model.pieces))


def _front_matter(plan: Plan, parents: list[str], stated: dict[str, str | None]) -> str:
    front: dict[str, Any] = {"base_model": parents}
    known = {licence for licence in stated.values() if licence}
    if len(known) == 1 and all(stated.values()):
        front["license"] = next(iter(known))
    if plan.config is not None:
        front["library_name"] = "transformers"
    front["tags"] = ["merge", "plait", *sorted({recipe.merge_method for recipe in plan.stages})]
    return yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip()


def _role(plan: Plan, model: Model) -> str:
    roles = []
    if any(str(recipe.base_model) == model.reference for recipe in plan.stages if recipe.base_model):
        roles.append("base")
    if plan.models[plan.donor].reference == model.reference:
        roles.append("config and tokenizer")
    return f" ({', '.join(roles)})" if roles else ""


def _tally(plan: Plan, names: dict[str, str]) -> list[str]:
    counts: dict[str, int] = {}
    for step in plan.steps:
        what = f"merged by {step.method}" if step.action == "merge" else f"copied ({step.reason})"
        counts[what] = counts.get(what, 0) + 1
    texts = [f"{count} {what}" for what, count in counts.items()]
    if plan.tied:
        texts.append(f"{len(plan.tied)} tied, so not written: {', '.join(sorted(plan.tied))}")
    dropped: dict[tuple[str, str], list[str]] = {}
    for drop in plan.dropped:
        dropped.setdefault((names.get(drop.model, drop.model), drop.reason), []).append(drop.name)
    for (model, reason), lost in dropped.items():
        more = f" and {len(lost) - _COUNTED} more" if len(lost) > _COUNTED else ""
        texts.append(f"{len(lost)} of {model} dropped ({reason}): {', '.join(lost[:_COUNTED])}{more}")
    return [neutral_text(text, plan.models) for text in (*texts, *_moved_experts(plan))]


def _moved_experts(plan: Plan) -> list[str]:
    """Say how many experts were matched to others than their own number."""
    moved: dict[str, list[bool]] = {}
    for key, order in expert_orders(plan).items():
        places = enumerate(order.split())
        moved.setdefault(key.rpartition(": ")[0], []).extend(number != str(place) for place, number in places)
    return [f"{sum(found)} of {len(found)} experts of {model} in another's place" for model, found in moved.items()]
