"""The model card: README.md of the output, with the front matter that the Hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from plait.planning.types import Model, Plan

__all__ = ["card", "licence_of", "licences"]

_RESTRICTED = ("nc", "non-commercial", "noncommercial", "sa", "research", "llama", "gemma", "other", "unknown")
_COUNTED = 12


def licence_of(model: Model) -> str | None:
    """Read the licence that a model's own card states in its front matter, or None."""
    readme = model.path / "README.md"
    if model.stage or not readme.is_file():
        return None
    text = readme.read_text(encoding="utf-8", errors="replace")
    found = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    if not found:
        return None
    try:
        front = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return None
    stated = front.get("license") if isinstance(front, dict) else None
    if isinstance(stated, list):
        return ", ".join(str(one) for one in stated)
    return str(stated) if stated else None


def licences(models: tuple[Model, ...]) -> tuple[dict[str, str | None], str]:
    """Return each parent's licence and one warning, "" when nothing is in the way of sharing the merge."""
    stated = {model.reference: licence_of(model) for model in models if not model.stage}
    different = sorted({licence for licence in stated.values() if licence})
    limits = [licence for licence in different if _is_restricted(licence)]
    unknown = [reference for reference, licence in stated.items() if licence is None]
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
    return any(word in words or (len(word) > 5 and word in licence.lower()) for word in _RESTRICTED)


def card(plan: Plan, name: str) -> str:
    """Write the card: parents, methods, parameters, recipe. The same merge writes the same card."""
    stored = [model for model in plan.models if not model.stage]
    stated, warning = licences(plan.models)
    front: dict[str, Any] = {"base_model": [_hub_name(model.reference) for model in stored]}
    known = {licence for licence in stated.values() if licence}
    if len(known) == 1 and all(stated.values()):
        front["license"] = next(iter(known))
    front["library_name"] = "transformers"
    front["tags"] = ["merge", "plait", *sorted({recipe.merge_method for recipe in plan.stages})]
    lines = ["---", yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(), "---", f"# {name}", ""]
    lines += ["A merge of model checkpoints, made with plait.", "", "## Models", ""]
    for model in stored:
        role = _role(plan, model)
        licence = stated[model.reference]
        lines.append(f"- `{_hub_name(model.reference)}`{role}: licence {licence or 'not stated'}")
    lines += ["", *([f"> {warning}", ""] if warning else [])]
    lines += ["## Tensors", "", *(f"- {text}" for text in _tally(plan)), "", "## Recipe", ""]
    lines += ["```yaml", plan.recipe.text.rstrip(), "```", ""]
    lines += ["`plait merge plait.lock OUT` makes the same bytes again from the same inputs.", ""]
    return "\n".join(lines)


def _hub_name(reference: str) -> str:
    """A hub name as it is; of a local path only the last part, which is all that means something elsewhere."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", reference) and not Path(reference).exists():
        return reference
    return Path(reference).name or reference


def _role(plan: Plan, model: Model) -> str:
    roles = []
    if plan.recipe.base_model and str(plan.recipe.base_model) == model.reference:
        roles.append("base")
    if plan.models[plan.donor].reference == model.reference:
        roles.append("config and tokenizer")
    return f" ({', '.join(roles)})" if roles else ""


def _tally(plan: Plan) -> list[str]:
    counts: dict[str, int] = {}
    for step in plan.steps:
        what = f"merged by {step.method}" if step.action == "merge" else f"copied ({step.reason})"
        counts[what] = counts.get(what, 0) + 1
    texts = [f"{count} {what}" for what, count in counts.items()]
    if plan.tied:
        texts.append(f"{len(plan.tied)} tied, so not written: {', '.join(sorted(plan.tied))}")
    dropped: dict[tuple[str, str], list[str]] = {}
    for drop in plan.dropped:
        dropped.setdefault((_hub_name(drop.model), drop.reason), []).append(drop.name)
    for (model, reason), names in dropped.items():
        more = f" and {len(names) - _COUNTED} more" if len(names) > _COUNTED else ""
        texts.append(f"{len(names)} of {model} dropped ({_neutral(reason, plan.models)}): {', '.join(names[:_COUNTED])}{more}")
    return texts


def _neutral(text: str, models: tuple[Model, ...]) -> str:
    names: Mapping[str, str] = {model.reference: _hub_name(model.reference) for model in models}
    for reference, name in names.items():
        text = text.replace(reference, name)
    return text
