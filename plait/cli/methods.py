"""`plait methods`."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("methods")
@click.argument("name", required=False)
@click.option("--methods", "files", multiple=True, type=click.Path(exists=True, dir_okay=False), help="A Python file with methods of your own.")
def command(name: str | None, *, files: tuple[str, ...]) -> None:
    """List the merge methods; or give the formula, parameters, source and a recipe of the one called NAME."""
    from plait.methods import load_methods  # noqa: PLC0415
    from plait.methods.describe import describe, listing  # noqa: PLC0415

    load_methods(files)
    click.echo(describe(name) if name else listing())
