"""`plait completion`."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of SHELL, as in: eval "$(plait completion bash)"."""
    from click.shell_completion import get_completion_class

    from plait.cli import root

    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"click cannot complete in {shell}.")
    click.echo(kind(root, {}, "plait", "_PLAIT_COMPLETE").source())
