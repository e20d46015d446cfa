"""The command line. Each command is a file here and a thin call of the Python API, imported when it is run."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import FrameType

import click

import plait
from plait.errors import PlaitError, did_you_mean

__all__ = ["main", "root"]

_COMMANDS = {
    "merge": "Merge checkpoints as a recipe (or a lock) says.",
    "plan": "Show everything that a merge will do; write nothing.",
    "explain": "Show which rule of a recipe gave each parameter its value.",
    "methods": "List the merge methods, or describe one.",
    "inspect": "Show what a checkpoint holds, from its headers.",
    "tokens": "Show the tokens of models, and how they differ.",
    "kinship": "Show how alike the changes are that models made to their base.",
    "extract": "Write the difference of a model from its base as a LoRA adapter.",
    "export": "Write a checkpoint in another program's format: GGUF, for llama.cpp.",
    "push": "Upload what plait wrote to a hub.",
    "completion": "Print the script that completes plait's commands in a shell.",
}


class _Lazy(click.Group):
    """Knows its commands by name, and imports one only when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"plait.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-"):
            near = did_you_mean(name, list(_COMMANDS))
            ctx.fail(f"There is no command {name!r}. {near or 'Commands: ' + ', '.join(_COMMANDS) + '.'}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(plait.__version__, "--version", prog_name="plait")
def root() -> None:
    """plait merges model checkpoints: every tensor accounted for, the same bytes always."""


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 a merge had to stop, 2 the input is wrong, 130 interrupted."""
    gc.set_threshold(100_000, 50, 50)  # a process this short, of few cycles: a tenth of its start would be collecting
    with _interruptible():
        _run()


def _run() -> None:
    try:
        code = root(prog_name="plait", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("Interrupted; nothing was written.", err=True)
        sys.exit(130)
    except PlaitError as error:
        from plait.cli.failures import as_text

        click.echo(as_text(error), err=True)
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let a first Ctrl-C stop the work in good order, and a second one, while that takes its time, end it at once."""

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, _end)
        signal.default_int_handler(number, frame)

    # Not where it is ignored (a job in the background), nor where whoever imported this has a way of their own.
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        if ours and signal.getsignal(signal.SIGINT) is not _end:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
    shown = b"\x1b[?25h" if sys.stderr.isatty() else b""  # the bar hides the cursor
    os.write(2, shown + b"\nStopped at once.\n")
    os._exit(130)
