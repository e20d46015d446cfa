"""Holding names and shapes against the model class that the output's config names, where transformers is installed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plait.checkpoint.experts import find_banks
from plait.planning.types import Plan
from plait.structure import align

__all__ = ["model_class_findings"]


@dataclass(frozen=True)
class _Expected:
    """What a model class would load: shapes by name, and for each name the others that are the same tensor."""

    shapes: Mapping[str, tuple[int, ...]]
    same: Mapping[str, frozenset[str]]
    optional: frozenset[str]


def model_class_findings(folder: Path, plan: Plan) -> tuple[list[str], list[str]]:
    """Build the class that config.json names, without weights, and compare it with the plan's tensors.

    Returns what does not fit, and warnings: a class that cannot be built proves nothing against the weights. Both are
    empty where transformers is not installed, or has no such class of its own.
    """
    config = plan.config or {}
    names = config.get("architectures")
    if not isinstance(names, list) or not names or "model_type" not in config:
        return [], []
    try:
        expected = _expected(folder, str(names[0]))
    except Exception as error:  # noqa: BLE001 - transformers and its classes may raise anything
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        return [], [f"{names[0]} cannot be built from config.json, so shapes were not checked: {reason}"]
    return (_faults(expected, str(names[0]), plan), []) if expected else ([], [])


def _faults(expected: _Expected, name: str, plan: Plan) -> list[str]:
    written = {step.name: step.shape for step in plan.steps}
    # Files of older versions call parts by other prefixes than the class does, and the output keeps to its donor's.
    renames = align(expected.shapes, written).renames
    written = {renames.get(one, one): shape for one, shape in written.items()}
    known = _forms_of_inputs(plan) | {_form(one) for one in written}
    # What no input ever had is not lost: classes name some tensors (fused experts) otherwise than files do.
    absent = expected.shapes.keys() - written.keys() - expected.optional - plan.tied.keys()
    missing = sorted(
        one for one in absent if _form(one) in known and not (expected.same.get(one, frozenset()) & written.keys())
    )
    wrong = sorted(one for one in expected.shapes.keys() & written.keys() if expected.shapes[one] != written[one])
    wrong = [one for one in wrong if one not in _turned_experts(expected.shapes, written)]
    texts = []
    if missing:
        texts.append(f"{name} expects {len(missing)} tensors that are not there, such as {missing[0]}")
    if wrong:
        shapes = f"{list(written[wrong[0]])}, {name} expects {list(expected.shapes[wrong[0]])}"
        texts.append(f"{len(wrong)} tensors have another shape, such as {wrong[0]}: {shapes}")
    return texts


def _turned_experts(expected: Mapping[str, tuple[int, ...]], written: Mapping[str, tuple[int, ...]]) -> set[str]:
    """Find stacked experts that are the class's transposed: files of Qwen3-VL-MoE have them so, and loading turns them."""
    banks = [bank for bank in find_banks(written, None).values() if not bank.problem]
    names = (name for bank in banks for name in bank.tensors())
    return {one for one in names if len(written[one]) == 3 and _turned(written[one]) == expected.get(one)}


def _turned(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2])


def _forms_of_inputs(plan: Plan) -> set[str]:
    """The names of everything that the plan reads, writes or drops, without numbers of layers."""
    names = [source.name for step in (*plan.stage_steps, *plan.steps) for source in step.inputs]
    return {_form(name) for name in (*names, *(step.name for step in plan.steps), *(d.name for d in plan.dropped))}


def _form(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "#", name)


def _expected(folder: Path, name: str) -> _Expected | None:
    """Build the class on the meta device. Raises whatever torch or transformers do."""
    try:
        import torch
        import transformers
    except ImportError:
        return None
    kind: Any = getattr(transformers, name, None)
    if kind is None:
        return None
    with _quietly(transformers), torch.device("meta"):
        # False, not None: plait never runs code out of a checkpoint, and never asks whether it should.
        model = kind(transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False))
    groups: dict[int, set[str]] = {}
    for key, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), set()).add(key)
    same = {key: frozenset(group - {key}) for group in groups.values() if len(group) > 1 for key in group}
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    return _Expected(shapes, same, frozenset(_tied(model)))


def _tied(model: Any) -> set[str]:
    """The names that the class takes from another tensor."""
    tied = getattr(model, "all_tied_weights_keys", None)
    if tied is None:  # before transformers 5, which works out what the config says
        tied = getattr(model, "_tied_weights_keys", None)
    return set(tied or ())


@contextmanager
def _quietly(transformers: Any) -> Iterator[None]:
    """Keep what transformers says about a config from the user's screen, and the user's settings as they are."""
    logging = transformers.utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)
