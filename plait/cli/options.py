"""Options that several commands have, each written once."""

from __future__ import annotations

import click

from plait.cli.sizes import SIZE

__all__ = ["json_option", "methods_option", "seed_option", "shard_option"]

methods_option = click.option(
    "--methods",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="A Python file with methods of your own; may be given again.",
)
shard_option = click.option(
    "--shard-size", type=SIZE, help="Most bytes of weights in a file. [default: 5GB, or the lock's]"
)
seed_option = click.option("--seed", type=click.IntRange(min=0), help="Use this seed, not the recipe's.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, errors included.")
