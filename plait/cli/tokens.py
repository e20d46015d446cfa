"""`plait tokens`."""

from __future__ import annotations

import json

import click

from plait.cli.options import json_option

__all__ = ["command"]


@click.command("tokens")
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path())
@json_option
def command(checkpoints: tuple[str, ...], *, as_json: bool) -> None:
    """Show the tokens of CHECKPOINTS, and how each one's differ from the first one's.

    Tokens, their numbers and kinds, and the rows of embeddings and heads. No weight is read.
    """
    import plait
    from plait.checkpoint.token_report import tokens_text
    from plait.cli.failures import json_errors

    with json_errors(as_json):
        report = plait.tokens(checkpoints)
        click.echo(json.dumps(report.as_data(), indent=1, ensure_ascii=False) if as_json else tokens_text(report))
