"""What a command says and exits with when it cannot go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from plait.errors import PlaitError, RecipeError

__all__ = ["Interrupted", "as_data", "as_text", "json_errors"]


class Interrupted(click.ClickException):
    """The user stopped the program (Ctrl-C)."""

    exit_code = 130

    def show(self, file: Any = None) -> None:
        """Print the message alone: nothing was wrong."""
        click.echo(self.message, file=file, err=file is None)


def as_text(error: PlaitError) -> str:
    """Return what a reader is told: every fault of a recipe and their number, or the one thing that is wrong."""
    if not isinstance(error, RecipeError):
        return f"plait: {error}"
    count = len(error.faults)
    return f"{error}\n{count} fault{'s' if count != 1 else ''}; nothing was written."


def as_data(error: Exception) -> dict[str, Any]:
    """Return the same for a program: an `error` event, whose `faults` has a recipe's faults with their lines."""
    faults = error.faults if isinstance(error, RecipeError) else ()
    return {
        "event": "error",
        "kind": type(error).__name__,
        "text": str(error),
        "faults": [
            {
                "file": fault.where.file if fault.where else None,
                "line": fault.where.line if fault.where else None,
                "message": fault.message,
                "hint": fault.hint,
            }
            for fault in faults
        ],
    }


@contextmanager
def json_errors(wanted: bool) -> Iterator[None]:
    """Print what goes wrong inside as one line of JSON, too, when `wanted`; then let it through."""
    try:
        yield
    except Interrupted as stop:
        if wanted:
            click.echo(json.dumps({"event": "interrupted", "text": stop.message}, ensure_ascii=False))
        raise
    except Exception as error:
        if wanted:
            click.echo(json.dumps(as_data(error), ensure_ascii=False))
        raise
