"""`plait push`."""

from __future__ import annotations

import json

import click

from plait.cli.options import json_option

__all__ = ["command"]


@click.command("push")
@click.argument("out", type=click.Path())
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="For you alone, where the repository is made now.")
@click.option("--revision", metavar="BRANCH", help="The branch to push to; made where it is missing. [default: main]")
@click.option("--message", help="What the commit says.")
@click.option("--any-folder", is_flag=True, help="Push a folder that plait did not write, or that is not whole.")
@click.option("-q", "--quiet", is_flag=True, help="Print the address only.")
@json_option
def command(
    out: str,
    repo: str,
    *,
    private: bool,
    revision: str | None,
    message: str | None,
    any_folder: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Upload OUT, which plait wrote, to the model OWNER/NAME of the hub. Run again, it goes on where it was cut."""
    import plait
    from plait.cli.failures import Interrupted, json_errors

    with json_errors(as_json):
        try:
            made = plait.push(
                out,
                repo,
                private=private,
                revision=revision,
                message=message,
                any_folder=any_folder,
                quiet=quiet or as_json,
            )
        except KeyboardInterrupt:
            raise Interrupted("Interrupted. What is uploaded is kept; the same command goes on there.") from None
        click.echo(json.dumps({"url": made.url, "commit": made.commit}) if as_json else made.url)
