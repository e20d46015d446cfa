"""What the demo shows: a table in the terminal, a picture and a file of numbers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from evaluate import Score
    from rich.console import Console

__all__ = ["Row", "draw", "print_table", "save", "verdict"]

_COLOURS = {"parent": "#7a869a", "merge": "#2f7d5b"}


@dataclass(frozen=True)
class Row:
    """One model of the table."""

    name: str
    title: str
    kind: Literal["parent", "merge"]
    score: Score
    seconds: float | None
    """Wall time of the `plait merge` process; None where nothing was merged."""


def print_table(rows: Sequence[Row], console: Console) -> None:
    """Print all models, parents first, merges by loss."""
    table = Table(title="Masked-token prediction on chemical reactions (lower loss is better)")
    table.add_column("model")
    for column in ("loss (nats)", "bits", "accuracy", "merge (s)"):
        table.add_column(column, justify="right")
    for row in ordered(rows):
        score = row.score
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        style = "dim" if row.kind == "parent" else None
        numbers = (f"{score.loss:.3f}", f"{score.bits:.3f}", f"{score.accuracy:.3f}")
        table.add_row(row.title, *numbers, seconds, style=style, end_section=row is _last_parent(rows))
    console.print(table)


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Parents in the given order, then merges from the lowest loss to the highest."""
    parents = [row for row in rows if row.kind == "parent"]
    return parents + sorted((row for row in rows if row.kind == "merge"), key=lambda row: row.score.loss)


def _last_parent(rows: Sequence[Row]) -> Row:
    return [row for row in rows if row.kind == "parent"][-1]


def verdict(rows: Sequence[Row], merge: str, parents: Sequence[str]) -> tuple[bool, str]:
    """Say whether `merge` has a lower loss than each of `parents`, as one sentence with the numbers."""
    by_name = {row.name: row for row in rows}
    merged, beaten = by_name[merge].score.loss, [by_name[name].score.loss for name in parents]
    good = all(merged < loss for loss in beaten)
    numbers = f"loss {merged:.2f} against " + " and ".join(f"{loss:.2f}" for loss in beaten)
    if good:
        return True, f"The mean of the two fine-tunes predicts masked tokens better than either of them: {numbers}."
    return False, f"The mean of the two fine-tunes does NOT beat both of them: {numbers}. Something is wrong."


def save(rows: Sequence[Row], file: Path) -> None:
    """Write all numbers as JSON."""
    listed = [asdict(row) | {"score": asdict(row.score) | {"bits": row.score.bits}} for row in ordered(rows)]
    file.write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


def draw(rows: Sequence[Row], file: Path) -> None:
    """Draw the losses as bars, parents and merges in different colours."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    listed = ordered(rows)[::-1]
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(listed) + 1.5), layout="constrained")
    losses = [row.score.loss for row in listed]
    bars = axes.barh([row.title for row in listed], losses, color=[_COLOURS[row.kind] for row in listed])
    labels = [f"{row.score.loss:.2f}   ({row.score.accuracy:.0%} right)" for row in listed]
    axes.bar_label(bars, labels, padding=4, fontsize=9)
    axes.set_xlim(0, max(losses) * 1.3)
    axes.set_xlabel("masked-token loss (nats, lower is better)")
    axes.set_title("Three BERTs that read chemical reactions, and their merges")
    axes.spines[["top", "right"]].set_visible(False)
    handles = [
        Patch(color=_COLOURS["parent"], label="parents"),
        Patch(color=_COLOURS["merge"], label="merges by plait"),
    ]
    axes.legend(handles=handles, loc="lower right", frameon=False)
    figure.savefig(file, dpi=150)
    plt.close(figure)
