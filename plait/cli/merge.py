"""`plait merge`."""

from __future__ import annotations

from typing import Any

import click

from plait.cli.options import methods_option, seed_option, shard_option
from plait.cli.sizes import SIZE

__all__ = ["command"]


@click.command("merge")
@click.argument("recipe", type=click.Path())
@click.argument("out", type=click.Path())
@click.option("--threads", type=click.IntRange(min=1), help="Most threads. [default: one a core]")
@click.option(
    "--memory", type=SIZE, default="1GiB", show_default=True, help="Most memory over what plait needs anyway."
)
@shard_option
@click.option("--device", default="cpu", show_default=True, help="cpu, or a torch device such as cuda.")
@seed_option
@click.option(
    "--resume/--fresh", default=True, show_default=True, help="Go on with an interrupted merge, or start afresh."
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier output; nothing of it is kept.")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Open the output anew and check it.")
@click.option("--sync", is_flag=True, help="Wait until all is on the disk before the output gets its name.")
@click.option("--allow-nonfinite", is_flag=True, help="Go on in spite of NaN or infinity.")
@methods_option
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Print notes on every decision, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each event, errors included.")
def command(
    recipe: str, out: str, *, files: tuple[str, ...], quiet: bool, verbose: bool, as_json: bool, **options: Any
) -> None:
    """Merge checkpoints as RECIPE (a YAML recipe or a plait.lock) says, into the folder OUT."""
    import plait
    from plait.cli.adapter_plan import result_as_text
    from plait.cli.failures import Interrupted, json_errors
    from plait.cli.progress import reporter
    from plait.methods import load_methods

    with json_errors(as_json):
        load_methods(files)
        plan = plait.plan(recipe, shard_size=options["shard_size"], seed=options["seed"])
        try:
            with reporter(plan, quiet=quiet, verbose=verbose, as_json=as_json) as tell:
                result = plait.merge(recipe, out, planned=plan, on_event=tell, **options)
        except KeyboardInterrupt:
            kept = "what is done is kept beside it, and the same command goes on there"
            kept = kept if plan.recipe.adapter is None else "nothing was kept"
            raise Interrupted(f"Interrupted. There is no {out} yet; {kept}.") from None
    if not quiet and not as_json:
        click.echo(result_as_text(result))
