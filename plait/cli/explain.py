"""`plait explain`."""

from __future__ import annotations

import json

import click

from plait.cli.options import json_option, methods_option

__all__ = ["command"]


@click.command("explain")
@click.argument("recipe", type=click.Path())
@click.argument("tensor_glob")
@methods_option
@json_option
def command(recipe: str, tensor_glob: str, *, files: tuple[str, ...], as_json: bool) -> None:
    """Show, for each output tensor that TENSOR_GLOB matches, which rule of RECIPE gave each parameter its value."""
    import plait
    from plait.cli.failures import json_errors
    from plait.methods import load_methods
    from plait.planning.render import explained_as_data, explained_as_text

    with json_errors(as_json):
        load_methods(files)
        steps = plait.explain(recipe, tensor_glob)
        if as_json:
            click.echo(json.dumps([explained_as_data(step) for step in steps], indent=1, ensure_ascii=False))
        else:
            click.echo("\n\n".join(explained_as_text(step) for step in steps))
