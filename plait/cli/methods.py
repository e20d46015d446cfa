"""`plait methods`."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from plait.cli.options import methods_option

__all__ = ["command"]


def _names(_context: click.Context, _argument: click.Parameter, begun: str) -> list[CompletionItem]:
    from plait.methods import find_method, method_names

    found = [name for name in method_names() if name.startswith(begun)]
    return [CompletionItem(name, help=find_method(name).summary) for name in found]


@click.command("methods")
@click.argument("name", required=False, shell_complete=_names)
@methods_option
def command(name: str | None, *, files: tuple[str, ...]) -> None:
    """List the merge methods; or give the formula, parameters, source and a recipe of the one called NAME."""
    from plait.methods import load_methods
    from plait.methods.describe import describe, listing

    load_methods(files)
    click.echo(describe(name) if name else listing())
