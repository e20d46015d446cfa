"""`plait merge`."""

from __future__ import annotations

import click

from plait.cli.sizes import SIZE, readable

__all__ = ["command"]


@click.command("merge")
@click.argument("recipe", type=click.Path())
@click.argument("out", type=click.Path(file_okay=False))
@click.option("--threads", type=click.IntRange(min=1), help="Most threads. [default: one a core]")
@click.option("--memory", type=SIZE, default="1GiB", show_default=True, help="Most memory over what plait needs anyway.")
@click.option("--shard-size", type=SIZE, help="Most bytes of weights in a file. [default: 5GB, or the lock's]")
@click.option("--device", default="cpu", show_default=True, help="cpu, or a torch device such as cuda.")
@click.option("--seed", type=int, help="Overrides the recipe's seed.")
@click.option("--resume/--fresh", default=True, show_default=True, help="Go on with an interrupted merge, or start afresh.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier output; nothing of it is kept.")
@click.option("--no-verify", is_flag=True, help="Do not open the output anew and check it.")
@click.option("--allow-nonfinite", is_flag=True, help="Go on in spite of NaN or infinity.")
@click.option("--methods", "files", multiple=True, type=click.Path(exists=True, dir_okay=False), help="A Python file with methods of your own.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("-v", "--verbose", count=True, help="Print notes on every decision, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each event.")
def command(
    recipe: str,
    out: str,
    *,
    threads: int | None,
    memory: int,
    shard_size: int | None,
    device: str,
    seed: int | None,
    resume: bool,
    overwrite: bool,
    no_verify: bool,
    allow_nonfinite: bool,
    files: tuple[str, ...],
    quiet: bool,
    verbose: int,
    as_json: bool,
) -> None:
    """Merge checkpoints as RECIPE (a YAML recipe or a plait.lock) says, into the folder OUT."""
    import plait  # noqa: PLC0415
    from plait.cli.progress import reporter  # noqa: PLC0415
    from plait.methods import load_methods  # noqa: PLC0415

    load_methods(files)
    plan = plait.plan(recipe, shard_size=shard_size, seed=seed)
    with reporter(plan, quiet=quiet, verbose=verbose, as_json=as_json) as tell:
        result = plait.merge(
            recipe,
            out,
            threads=threads,
            memory=memory,
            shard_size=shard_size,
            device=device,
            seed=seed,
            resume=resume,
            overwrite=overwrite,
            verify=not no_verify,
            allow_nonfinite=allow_nonfinite,
            on_event=tell,
            planned=plan,
        )
    if not quiet and not as_json:
        rate = (result.bytes_read + result.bytes_written) / max(result.seconds, 1e-9)
        click.echo(
            f"{out}: {len(plan.steps)} tensors, {readable(plan.bytes_written)}, {result.seconds:.1f} s "
            f"({readable(rate)}/s read and written)"
        )
