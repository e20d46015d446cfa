"""`plait export`."""

from __future__ import annotations

import json
from typing import Any

import click

from plait.cli.options import json_option
from plait.cli.sizes import readable

__all__ = ["command"]


@click.command("export")
@click.argument("model", type=click.Path())
@click.option(
    "--gguf",
    "file",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    required=True,
    help="Write a GGUF file. [default FILE: in the model's folder, called as that and the type]",
)
@click.option(
    "--type", "kind", type=click.Choice(["f32", "f16", "bf16", "q8_0"]), help="Of the weights. [default: as most are]"
)
@click.option("--threads", type=click.IntRange(min=1), help="Most threads. [default: one a core]")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@json_option
def command(model: str, file: str, *, kind: str | None, quiet: bool, as_json: bool, **options: Any) -> None:
    """Write MODEL, a folder that was merged or any other checkpoint, in another program's format: GGUF for llama.cpp."""
    import plait
    from plait.cli.failures import Interrupted, json_errors

    with json_errors(as_json):
        try:
            made = plait.export_gguf(model, file or None, kind=kind, **options)
        except KeyboardInterrupt:
            raise Interrupted("Interrupted; no file was written.") from None
        if as_json:
            said = {"path": str(made.path), "type": made.type, "tensors": made.tensors, "bytes": made.nbytes}
            click.echo(json.dumps(said | {"notes": list(made.notes)}, indent=1, ensure_ascii=False))
        elif not quiet:
            for note in made.notes:
                click.echo(f"note: {note}", err=True)
            click.echo(f"{made.path}: {made.tensors} tensors, {made.type}, {readable(made.nbytes)}")
