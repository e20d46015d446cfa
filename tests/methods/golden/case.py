"""What a merge worked out by hand says. The other files have them, a family of methods each: `GOLDEN`, `EXCEPT`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Nested = Sequence[Any] | Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Case:
    """Models of one tensor ("w") or, as dicts, of several; parameters; what must come out."""

    models: Sequence[Nested]
    expected: Nested
    parameters: Mapping[str, Any] = field(default_factory=dict)
    base: Nested | None = None
    seed: int = 0


@cache
def tables() -> Any:
    """Put the tables of this folder's files together; a method has its cases in one file.

    `GOLDEN` has the cases by method. `EXCEPT` has, by method and law, the reason why the law is not kept.
    """
    whole = SimpleNamespace(GOLDEN={}, EXCEPT={})
    for file in sorted(Path(__file__).parent.glob("*.py")):
        module = importlib.import_module(f"golden.{file.stem}")
        for title, table in vars(whole).items():
            more = getattr(module, title, {})
            assert not table.keys() & more.keys(), f"{file.name} has cases of a method that another file has"
            table.update(more)
    return whole
