"""`plait inspect`."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("inspect")
@click.argument("checkpoint", type=click.Path())
@click.option("--tensors/--no-tensors", default=False, help="List every tensor.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(checkpoint: str, *, tensors: bool, as_json: bool) -> None:
    """Show what CHECKPOINT (a folder, a file or a hub name) holds. Only headers are read."""
    import json  # noqa: PLC0415

    import plait  # noqa: PLC0415
    from plait.checkpoint.summary import summary_data, summary_text  # noqa: PLC0415

    opened = plait.inspect(checkpoint)
    if as_json:
        click.echo(json.dumps(summary_data(opened, tensors=tensors), indent=1))
    else:
        click.echo(summary_text(opened, tensors=tensors))
