"""`plait extract`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from plait.cli.options import json_option
from plait.cli.sizes import SIZE, readable

if TYPE_CHECKING:
    from plait.adapters import Extraction
    from plait.engine.run import Event

__all__ = ["command"]


@click.command("extract")
@click.argument("base", type=click.Path())
@click.argument("model", type=click.Path())
@click.argument("out", type=click.Path())
@click.option("--rank", type=int, help="Singular values kept of each delta. [default: 32]")
@click.option("--energy", type=float, help="Instead of a rank: the share of the sum of squares to keep, in (0, 1).")
@click.option("--error", type=float, help="Instead of a rank: the relative error that is allowed, in (0, 1).")
@click.option("--include", metavar="REGEX", help="Leave out every tensor whose name does not match.")
@click.option("--exclude", metavar="REGEX", help="Leave out every tensor whose name matches.")
@click.option(
    "--save-embeddings/--no-save-embeddings",
    default=True,
    show_default=True,
    help="Save embeddings that differ whole, or leave them out.",
)
@click.option("--base-name", metavar="NAME", help="What the adapter calls its base. [default: BASE as given]")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the random projection.")
@click.option("--threads", type=click.IntRange(min=1), help="Most threads. [default: one a core]")
@click.option("--memory", type=SIZE, default="2GiB", show_default=True, help="Most memory, if one layer needs no more.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier adapter; nothing of it is kept.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@json_option
def command(base: str, model: str, out: str, *, quiet: bool, as_json: bool, **options: Any) -> None:
    """Write the difference of MODEL from BASE as a LoRA adapter into the folder OUT, which peft loads."""
    import plait
    from plait.cli.failures import Interrupted, json_errors

    def tell(event: Event) -> None:
        if event.kind == "progress" and not quiet and not as_json and ": " in event.text:
            click.echo(event.text, err=True)

    with json_errors(as_json):
        try:
            found = plait.extract(base, model, out, on_event=tell, **options)
        except KeyboardInterrupt:
            raise Interrupted(f"Interrupted. There is no {out}; nothing was kept.") from None
        if as_json:
            click.echo(json.dumps(_as_data(found), indent=1, ensure_ascii=False))
        elif not quiet:
            click.echo(_as_text(found))


def _as_data(found: Extraction) -> dict[str, Any]:
    rows = [
        {"module": one.module, "shape": list(one.shape), "rank": one.rank, "error": one.error, "norm": one.norm}
        for one in found.modules
    ]
    return {
        "path": str(found.path), "base": found.base, "model": found.model, "modules": rows, "error": found.error,
        "saved": list(found.saved), "left_out": dict(found.left_out), "unchanged": found.unchanged,
        "bytes": found.nbytes,
    }  # fmt: skip


def _as_text(found: Extraction) -> str:
    wide = max(len(one.module) for one in found.modules)
    lines = [f"{'module':{wide}}  rank  relative error"]
    lines += [f"{one.module:{wide}}  {one.rank:4}  {one.error:.3e}" for one in found.modules]
    lines += [f"saved whole: {name}" for name in found.saved]
    lines += [f"left out: {name} ({reason})" for name, reason in found.left_out.items()]
    count = len(found.modules)
    lines.append(
        f"{found.path}: {count} module{'s' if count != 1 else ''}, total relative error {found.error:.3e}, "
        f"{found.unchanged} tensors unchanged, {readable(found.nbytes)}, {found.seconds:.1f} s"
    )
    return "\n".join(lines)
