"""`plait plan`."""

from __future__ import annotations

import click

from plait.cli.sizes import SIZE

__all__ = ["command"]


@click.command("plan")
@click.argument("recipe", type=click.Path())
@click.option("--shard-size", type=SIZE, help="Most bytes of weights in a file. [default: 5GB, or the lock's]")
@click.option("--seed", type=int, help="Overrides the recipe's seed.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads to reckon with. [default: one a core]")
@click.option("--methods", "files", multiple=True, type=click.Path(exists=True, dir_okay=False), help="A Python file with methods of your own.")
@click.option("-v", "--verbose", is_flag=True, help="Every tensor on its own line, even where many are alike.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
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
    import plait  # noqa: PLC0415
    from plait.methods import load_methods  # noqa: PLC0415
    from plait.planning.render import plan_as_json, plan_as_text  # noqa: PLC0415

    load_methods(files)
    made = plait.plan(recipe, shard_size=shard_size, seed=seed)
    click.echo(plan_as_json(made, threads) if as_json else plan_as_text(made, threads, every=verbose))
