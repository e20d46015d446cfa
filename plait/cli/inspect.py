"""`plait inspect`."""

from __future__ import annotations

import json

import click

from plait.cli.options import json_option

__all__ = ["command"]


@click.command("inspect")
@click.argument("checkpoint", type=click.Path())
@click.option("--tensors", is_flag=True, help="List every tensor, too.")
@json_option
def command(checkpoint: str, *, tensors: bool, as_json: bool) -> None:
    """Show what CHECKPOINT (a folder, a file or a hub name) holds. Only headers are read."""
    import plait
    from plait.checkpoint.summary import summary_data, summary_text
    from plait.cli.failures import json_errors

    with json_errors(as_json):
        opened = plait.inspect(checkpoint)
        if as_json:
            click.echo(json.dumps(summary_data(opened, tensors=tensors), indent=1, ensure_ascii=False))
        else:
            click.echo(summary_text(opened, tensors=tensors))
