"""`plait explain`."""

from __future__ import annotations

import json

import click

__all__ = ["command"]


@click.command("explain")
@click.argument("recipe", type=click.Path())
@click.argument("tensor_glob")
@click.option("--methods", "files", multiple=True, type=click.Path(exists=True, dir_okay=False), help="A Python file with methods of your own.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(recipe: str, tensor_glob: str, *, files: tuple[str, ...], as_json: bool) -> None:
    """Show, for each output tensor that TENSOR_GLOB matches, which rule of RECIPE gave each parameter its value."""
    import plait  # noqa: PLC0415
    from plait.methods import load_methods  # noqa: PLC0415
    from plait.planning.render import explained_as_data, explained_as_text  # noqa: PLC0415

    load_methods(files)
    steps = plait.explain(recipe, tensor_glob)
    if as_json:
        click.echo(json.dumps([explained_as_data(step) for step in steps], indent=1))
    else:
        click.echo("\n\n".join(explained_as_text(step) for step in steps))
