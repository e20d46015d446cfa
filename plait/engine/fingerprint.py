"""Telling one plan from another, so that an interrupted merge goes on only as itself."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from plait.engine.hashes import CHUNK
from plait.errors import CheckpointError
from plait.methods import find_method
from plait.planning.types import Plan, Step

__all__ = ["fingerprint"]

_LEFT_OUT = {"explained", "reason"}


def fingerprint(plan: Plan) -> str:
    """Digest all that decides a plan's bytes: steps, layout, seed, methods' code, files by size and time of change.

    Raises:
        CheckpointError: an input file is gone.
    """
    state = hashlib.blake2b(digest_size=16)
    files: dict[str, tuple[int, int]] = {}
    for place in plan.placed:
        state.update(json.dumps(_described(place), sort_keys=True).encode())
    steps = (*plan.stage_steps, *plan.steps)
    for step in steps:
        for source in step.inputs:
            for part in source.tensor.held if source.tensor is not None else ():
                if part.file not in files:
                    files[part.file] = _state_of(part.file)
    code = [hashlib.blake2b(Path(file).read_bytes(), digest_size=16).hexdigest() for file in _code_files(steps)]
    rest = [_version(), CHUNK, plan.seed, code, sorted(files.items()), [file.name for file in plan.files]]
    state.update(json.dumps(rest).encode())
    return state.hexdigest()


def _version() -> str:
    try:
        return version("plait")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return ""


def _state_of(file: str) -> tuple[int, int]:
    try:
        found = Path(file).stat()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}.") from error
    return found.st_size, found.st_mtime_ns


def _code_files(steps: Iterable[Step]) -> list[str]:
    """The files that the methods and post-steps were read from: a user may change theirs between two runs."""
    found = set()
    for step in steps:
        if step.action == "merge":
            found.add(find_method(step.method).chosen(step.parameters).run)
            found.update(find_method(name, post=True).run for name, _ in step.post)
    codes = [getattr(inspect.unwrap(run), "__code__", None) for run in found]
    return sorted({code.co_filename for code in codes if code is not None and Path(code.co_filename).is_file()})


def _described(value: Any) -> Any:
    if is_dataclass(value):
        return [_described(getattr(value, one.name)) for one in fields(value) if one.name not in _LEFT_OUT]
    if isinstance(value, (tuple, list)):
        return [_described(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): _described(one) for key, one in value.items()}
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
