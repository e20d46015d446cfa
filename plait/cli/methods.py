"""`plait methods`."""

from __future__ import annotations

import json
import shutil
import sys

import click
from click.shell_completion import CompletionItem

from plait.cli.options import json_option, methods_option

__all__ = ["command", "is_terminal"]


def is_terminal() -> bool:
    """Whether what is printed goes to a terminal, whose width it must fit."""
    return sys.stdout.isatty()


def _names(_context: click.Context, _argument: click.Parameter, begun: str) -> list[CompletionItem]:
    from plait.methods import find_method, method_names

    found = [name for name in method_names() if name.startswith(begun)]
    return [CompletionItem(name, help=find_method(name).summary) for name in found]


@click.command("methods")
@click.argument("name", required=False, shell_complete=_names)
@methods_option
@json_option
def command(name: str | None, *, files: tuple[str, ...], as_json: bool) -> None:
    """List the merge methods; or give the formula, parameters, source, cost and a recipe of the one called NAME."""
    from plait.cli.failures import json_errors
    from plait.methods import find_method, load_methods, method_names
    from plait.methods.describe import describe, listing
    from plait.methods.facts import as_data

    with json_errors(as_json):
        load_methods(files)
        if as_json:
            found = as_data(find_method(name)) if name else [as_data(find_method(one)) for one in method_names()]
            click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        else:
            width = shutil.get_terminal_size().columns if is_terminal() else None
            click.echo(describe(name, width) if name else listing(width))
