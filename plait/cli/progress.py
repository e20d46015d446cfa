"""Progress on the way: a bar in a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from plait.cli.sizes import readable
from plait.engine.run import Event
from plait.planning.types import Plan
from plait.planning.totals import bytes_read

__all__ = ["reporter"]

_EVERY = 10.0  # seconds between plain lines
Tell = Callable[[Event], None]


@contextmanager
def reporter(plan: Plan, *, quiet: bool, verbose: int, as_json: bool) -> Iterator[Tell]:
    """Give a function that shows events, after showing what the plan warns of."""
    total = bytes_read(plan) + plan.bytes_written
    if as_json:
        yield _json_lines(total)
        return
    if quiet:
        yield lambda _event: None
        return
    for warning in plan.warnings:
        click.echo(f"warning: {warning}", err=True)
    if verbose:
        for note in (*plan.notes, *(f"{m.reference}: {n}" for m in plan.models for n in m.notes)):
            click.echo(f"note: {note}", err=True)
    if sys.stderr.isatty():
        with _bar(total) as tell:
            yield tell
    else:
        yield _plain(total)


def _json_lines(total: int) -> Tell:
    last = [0.0]

    def tell(event: Event) -> None:
        now = time.monotonic()
        if event.kind == "progress" and now - last[0] < 0.25:
            return
        last[0] = now
        entry = {"event": event.kind, "text": event.text, "read": event.bytes_read, "written": event.bytes_written, "total": total}
        click.echo(json.dumps(entry))

    return tell


def _plain(total: int) -> Tell:
    began = last = time.monotonic()

    def tell(event: Event) -> None:
        nonlocal last
        now = time.monotonic()
        if event.kind == "warning":
            click.echo(f"warning: {event.text}", err=True)
        if event.kind == "resume":
            click.echo(f"resuming: {event.text}", err=True)
        if event.kind == "progress" and now - last >= _EVERY:
            last = now
            done = event.bytes_read + event.bytes_written
            rate = done / (now - began)
            left = max(0.0, (total - done) / rate) if rate else 0.0
            click.echo(f"{100 * done / max(1, total):3.0f} %  {readable(done)}  {readable(rate)}/s  {left:.0f} s left  {event.text}", err=True)

    return tell


@contextmanager
def _bar(total: int) -> Iterator[Tell]:
    from rich.console import Console  # noqa: PLC0415 - only for a terminal
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = (
        BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)

        def tell(event: Event) -> None:
            if event.kind == "progress":
                progress.update(task, completed=event.bytes_read + event.bytes_written, description=event.text)
            elif event.kind in {"warning", "resume"}:
                progress.console.print(f"{event.kind}: {event.text}", markup=False)

        yield tell
