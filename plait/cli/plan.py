"""`plait plan`."""

from __future__ import annotations

import click

from plait.cli.options import json_option, methods_option, seed_option, shard_option

__all__ = ["command"]


@click.command("plan")
@click.argument("recipe", type=click.Path())
@shard_option
@seed_option
@click.option("--threads", type=click.IntRange(min=1), help="Threads to reckon with. [default: one a core]")
@methods_option
@click.option("-v", "--verbose", is_flag=True, help="Every tensor on its own line, even where many are alike.")
@json_option
def command(
    recipe: str,
    *,
    shard_size: int | None,
    seed: int | None,
    threads: int | None,
    files: tuple[str, ...],
    verbose: bool,
    as_json: bool,
) -> None:
    """Show everything that merging RECIPE will do. Only headers are read, and nothing is written."""
    import plait
    from plait.cli.adapter_plan import plan_as_json, plan_as_text
    from plait.cli.failures import json_errors
    from plait.methods import load_methods

    with json_errors(as_json):
        load_methods(files)
        made = plait.plan(recipe, shard_size=shard_size, seed=seed)
        click.echo(plan_as_json(made, threads) if as_json else plan_as_text(made, threads, every=verbose))
