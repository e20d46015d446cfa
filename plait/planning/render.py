"""A plan in words and as JSON."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from plait.dtypes import DTYPES
from plait.planning.ledger import ledger_as_data, ledger_as_lines, ledger_of
from plait.planning.memory import peak_memory
from plait.planning.totals import bytes_read, bytes_to_fetch, passes, step_bytes
from plait.planning.types import Plan, Source, Step

__all__ = ["explained_as_data", "explained_as_text", "plan_as_json", "plan_as_text"]

_MANY_FILES = 8


def plan_as_text(plan: Plan, threads: int | None = None, *, every: bool = False) -> str:
    """Return the plan as a reader wants it: inputs, output, tensors, what is left out, what to beware of.

    Tensors of layers that are treated alike share a line, unless `every`.
    """
    workers = threads or os.cpu_count() or 1
    lines = ["Inputs"]
    for index, model in enumerate(plan.models):
        role = ["config and tokenizer"] if index == plan.donor else []
        role += ["stage of this recipe"] if model.stage else []
        lines.append(f"  {index}  {model.reference}" + (f"  ({', '.join(role)})" if role else ""))
        lines += [f"     {note}" for note in model.notes]
    lines += ["", "Output"]
    lines += [f"  {line}" for line in _files(plan, every=every)]
    lines += [f"  {', '.join(_other_files(plan))}"]
    lines += ["", f"Tensors ({len(plan.steps)})"]
    lines += [f"  {line}" for line in (_each(plan.steps) if every else _grouped(plan.steps))]
    lines += _section("Notes", plan.notes)
    lines += _section("Warnings", [str(warning) for warning in plan.warnings])
    lines += _section("Ledger", ledger_as_lines(ledger_of(plan), every=every))
    total = sum(step_bytes(step) * passes(step) for step in plan.steps)
    peak = _size(peak_memory(plan.steps, workers))
    lines += [
        "",
        f"Reads {_size(bytes_read(plan))} of inputs ({_size(total)} over all passes), writes {_size(plan.bytes_written)}.",
        *([f"Fetches {_size(away)} from the hub first."] if (away := bytes_to_fetch(plan)) else []),
        f"Peak memory {peak} over the program's own, with {workers} threads. Seed {plan.seed}.",
    ]
    return "\n".join(lines)


def _files(plan: Plan, *, every: bool) -> list[str]:
    if every or len(plan.files) <= _MANY_FILES:
        return [f"{file.name}  {_size(file.size)}" for file in plan.files]
    largest = max(file.size for file in plan.files)
    span = f"{plan.files[0].name} to {plan.files[-1].name}"
    return [f"{span}  {_size(plan.bytes_written)} in {len(plan.files)} files of at most {_size(largest)}"]


def _other_files(plan: Plan) -> list[str]:
    own = ["config.json"] if plan.config is not None else []
    index = ["model.safetensors.index.json"] if len(plan.files) > 1 else []
    return [*index, *own, *sorted({**plan.side_files, **plan.texts}), "README.md", "plait_recipe.yml", "plait.lock"]


def _section(title: str, lines: Iterable[str]) -> list[str]:
    found = [f"  {line}" for line in lines]
    return ["", title, *found] if found else []


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count} bytes"


def _what(step: Step) -> str:
    """Say how a tensor is made, without its name."""
    shape = "×".join(str(n) for n in step.shape) or "scalar"
    kinds = " ".join(dict.fromkeys(DTYPES[source.dtype].name for source in step.inputs))
    out = DTYPES[step.dtype].name
    kind = out if kinds == out else f"{kinds} -> {out}"
    if step.action == "copy":
        return f"{shape} {kind}: copied from {_who(step.sources[0])} ({step.reason})"
    values = _arguments(step.parameters)
    base = f" on base {_who(step.base)}" if step.base is not None else ""
    post = "".join(f", then {name}({_arguments(parameters)})" for name, parameters in step.post)
    reason = f" ({step.reason})" if step.reason else ""
    settings = f"; {values}" if values else ""
    return f"{shape} {kind}: {step.method} of {', '.join(_who(s) for s in step.sources)}{base}{settings}{post}{reason}"


def _arguments(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in parameters.items() if name != "int8_mask")


def _who(source: Source) -> str:
    return str(source.model)


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{one:.4g}" for one in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _renamed(step: Step) -> str:
    others = dict.fromkeys(source.name for source in step.inputs if source.name != step.name)
    return f"  [stored as {', '.join(others)}]" if others else ""


def _each(steps: Iterable[Step]) -> list[str]:
    return [f"{step.name}  {_what(step)}{_renamed(step)}  {_traffic([step])}" for step in steps]


def _traffic(steps: Sequence[Step]) -> str:
    read = sum(step_bytes(step) * passes(step) for step in steps)
    return f"[reads {_size(read)}, writes {_size(sum(step.nbytes for step in steps))}]"


def _grouped(steps: Iterable[Step]) -> list[str]:
    """One line for all tensors whose names differ only in numbers and which are treated alike."""
    groups: dict[tuple[str, str], list[Step]] = defaultdict(list)
    for step in steps:
        groups[(re.sub(r"(?<=\.)\d+(?=\.)", "*", step.name), _what(step))].append(step)
    lines = []
    for (name, what), members in groups.items():
        count = f"  ({len(members)} tensors: {_span(members)})" if len(members) > 1 else ""
        shown = name if len(members) > 1 else members[0].name
        stored = _renamed(members[0]) if len(members) == 1 else _moved(members)
        lines.append(f"{shown}  {what}{count}{stored}  {_traffic(members)}")
    return lines


def _moved(members: Sequence[Step]) -> str:
    """Say which layers a group's tensors come from, where those are others than they are written to."""
    written = [_layer(step.name) for step in members]
    parts = []
    for place, source in enumerate(members[0].inputs):
        read = [_layer(step.inputs[place].name) for step in members]
        if read != written:
            parts.append(f"{' '.join(read)} of {_who(source)}")
    return f"  [layers {' '.join(written)} from {', '.join(parts)}]" if parts else ""


def _layer(name: str) -> str:
    found = re.search(r"\.(\d+)\.", name)
    return found[1] if found else name


def _span(members: list[Step]) -> str:
    numbers = [int(found[1]) for step in members if (found := re.search(r"\.(\d+)\.", step.name))]
    if sorted(numbers) == list(range(min(numbers), max(numbers) + 1)):
        return f"{min(numbers)} to {max(numbers)}"
    return ", ".join(str(n) for n in sorted(dict.fromkeys(numbers))[:8])


def plan_as_json(plan: Plan, threads: int | None = None) -> str:
    """Return the whole plan, tensor by tensor, as JSON."""
    workers = threads or os.cpu_count() or 1
    data = {
        "models": [{"reference": m.reference, "stage": m.stage, "notes": list(m.notes)} for m in plan.models],
        "donor": plan.donor,
        "files": [{"name": file.name, "size": file.size} for file in plan.files],
        "other_files": _other_files(plan),
        "tensors": [_as_data(placed.step) | {"file": placed.file, "offset": placed.offset} for placed in plan.placed],
        "tied": dict(plan.tied),
        "dropped": [{"model": d.model, "name": d.name, "reason": d.reason} for d in plan.dropped],
        "ledger": ledger_as_data(ledger_of(plan)),
        "warnings": [str(warning) for warning in plan.warnings],
        "notes": list(plan.notes),
        "bytes_read": bytes_read(plan),
        "bytes_written": plan.bytes_written,
        "bytes_to_fetch": bytes_to_fetch(plan),
        "commits": dict(plan.commits),
        "peak_memory": peak_memory(plan.steps, workers),
        "seed": plan.seed,
    }
    return json.dumps(data, indent=1, ensure_ascii=False)


def _as_data(step: Step) -> dict[str, Any]:
    return {
        "name": step.name,
        "shape": list(step.shape),
        "dtype": DTYPES[step.dtype].name,
        "action": step.action,
        "method": step.method or None,
        "sources": [{"model": s.model, "name": s.name, "dtype": DTYPES[s.dtype].name} for s in step.sources],
        "base": {"model": step.base.model, "name": step.base.name} if step.base else None,
        "parameters": {k: list(v) if isinstance(v, tuple) else v for k, v in step.parameters.items()},
        "post": [{"name": name, "parameters": dict(p)} for name, p in step.post],
        "reason": step.reason or None,
        "bytes_read": step_bytes(step),
        "passes": passes(step),
        "bytes_written": step.nbytes,
    }


def explained_as_text(step: Step) -> str:
    """Return one tensor's parameters, each with the rule that set it."""
    lines = [f"{step.name}", f"  {_what(step)}{_renamed(step)}", f"  {_traffic([step])}"]
    for one in step.explained:
        of = f" of {one.model}" if one.model else ""
        lines.append(f"  {one.parameter}{of} = {_value(one.value)}    {one.rule}")
    return "\n".join(lines)


def explained_as_data(step: Step) -> dict[str, Any]:
    """Return the same as plain data."""
    rules = [{"parameter": e.parameter, "model": e.model, "value": e.value, "rule": e.rule} for e in step.explained]
    return _as_data(step) | {"explained": rules}
