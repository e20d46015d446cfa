"""`plait kinship`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from plait.cli.options import json_option

if TYPE_CHECKING:
    from plait.engine.kinship import Kinship

__all__ = ["command"]


@click.command("kinship")
@click.argument("base", type=click.Path())
@click.argument("models", type=click.Path(), nargs=-1, required=True)
@click.option(
    "--measure",
    type=click.Choice(["pearson", "cosine", "euclidean"]),
    default="pearson",
    show_default=True,
    help="Correlation, cosine, or distance, of the models' differences from the base.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Most threads. [default: one a core]")
@json_option
def command(base: str, models: tuple[str, ...], *, measure: str, threads: int | None, as_json: bool) -> None:
    """Show how alike the changes are that MODELS made to BASE, and in which order to add them to a soup."""
    import plait
    from plait.cli.failures import json_errors

    with json_errors(as_json):
        found = plait.kinship(models, base, measure=measure, threads=threads)
        click.echo(json.dumps(_as_data(found), indent=1, ensure_ascii=False) if as_json else _as_text(found))


def _as_data(found: Kinship) -> dict[str, Any]:
    return {
        "models": list(found.models),
        "measure": found.measure,
        "matrix": found.matrix.tolist(),
        "order": [found.models[i] for i in found.order],
        "compared": found.compared,
        "left_out": dict(found.left_out),
    }


def _as_text(found: Kinship) -> str:
    """The matrix with numbered models, the order, and what was not compared."""
    numbers = [
        [f"{value:.4g}" if found.measure == "euclidean" else f"{value:.4f}" for value in row] for row in found.matrix
    ]
    heads = [str(i + 1) for i in range(len(found.models))]
    wide = max(len(cell) for row in [*numbers, heads] for cell in row)
    named = max(len(model) for model in found.models)
    edge = len(heads[-1])
    lines = [f"{found.measure}, {found.compared} numbers a model", ""]
    lines.append(" ".join([" " * (edge + 1 + named), *(head.rjust(wide) for head in heads)]))
    for head, model, row in zip(heads, found.models, numbers, strict=True):
        lines.append(" ".join([head.rjust(edge), model.ljust(named), *(cell.rjust(wide) for cell in row)]))
    lines += ["", "least alike first: " + ", ".join(found.models[i] for i in found.order)]
    lines += [f"not compared: {name} ({reason})" for name, reason in found.left_out.items()]
    return "\n".join(lines)
