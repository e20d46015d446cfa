"""Progress on the way: a bar in a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from plait.cli.sizes import readable
from plait.engine.run import Event, MergeResult
from plait.planning.totals import bytes_passed
from plait.planning.types import Plan

__all__ = ["closing_line", "reporter"]

_EVERY_LINE = 10.0
"""Seconds between plain lines."""
_EVERY_OBJECT = 0.25
"""Seconds between JSON lines of progress."""
Tell = Callable[[Event], None]


@contextmanager
def reporter(plan: Plan, *, quiet: bool, verbose: bool, as_json: bool) -> Iterator[Tell]:
    """Give a function that shows events, once what the plan warns of is shown."""
    total = bytes_passed(plan) + sum(step.nbytes for step in plan.steps)
    tell = _json_lines(total) if as_json else (lambda _event: None) if quiet else _plain_lines(total)
    for warning in plan.warnings:
        tell(Event("warning", str(warning)))
    for note in _notes(plan) if verbose else ():
        tell(Event("note", note))
    if as_json or quiet or not sys.stderr.isatty():
        yield tell
    else:
        with _bar(total) as in_place:
            yield in_place


def closing_line(result: MergeResult) -> str:
    """Say what was written, how long it took and how fast that was."""
    rate = (result.bytes_read + result.bytes_written) / max(result.seconds, 1e-9)
    count = len(result.plan.steps)
    return (
        f"{result.path}: {count} tensor{'s' if count != 1 else ''}, {readable(result.plan.bytes_written)}, "
        f"{result.seconds:.1f} s ({readable(rate)}/s read and written)"
    )


def _notes(plan: Plan) -> list[str]:
    return [*map(str, plan.notes), *(f"{model.reference}: {note}" for model in plan.models for note in model.notes)]


def _done(event: Event, total: int) -> int:
    """Bytes of `total` that are done; measuring passes read some of them more than once."""
    return min(total, event.bytes_read + event.bytes_written)


def _json_lines(total: int) -> Tell:
    last = -_EVERY_OBJECT

    def tell(event: Event) -> None:
        nonlocal last
        now = time.monotonic()
        if event.kind in {"progress", "download"}:
            if now - last < _EVERY_OBJECT:
                return
            last = now
        entry: dict[str, Any] = {"event": event.kind, "text": event.text}
        if event.kind == "download":
            entry |= {"fetched": event.fetched, "to_fetch": event.to_fetch}
        elif event.kind not in {"warning", "note"}:
            entry |= {"read": event.bytes_read, "written": event.bytes_written, "total": total}
        click.echo(json.dumps(entry, ensure_ascii=False))

    return tell


def _plain_lines(total: int) -> Tell:
    began = last = time.monotonic()

    def tell(event: Event) -> None:
        nonlocal began, last
        now = time.monotonic()
        if event.kind in {"warning", "note"}:
            click.echo(f"{event.kind}: {event.text}", err=True)
        elif event.kind == "start":
            began = last = now
        elif event.kind == "download":
            if now - last >= _EVERY_LINE or event.fetched == event.to_fetch:
                last = now
                click.echo(f"fetching: {readable(event.fetched)} of {readable(event.to_fetch)}  {event.text}", err=True)
        elif event.kind == "resume":
            began = last = now
            click.echo(f"resuming: {event.text}", err=True)
        elif event.kind == "progress" and now - last >= _EVERY_LINE:
            last = now
            done = _done(event, total)
            rate = done / (now - began)
            left = f"{(total - done) / rate:.0f} s left" if rate else "just begun"
            share = f"{100 * done / max(1, total):3.0f} %"
            click.echo(f"{share}  {readable(done)}  {readable(rate)}/s  {left}  {event.text}", err=True)

    return tell


@contextmanager
def _bar(total: int) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.table import Column

    name = TextColumn(
        "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
    )
    columns = (BarColumn(20), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), name)
    with Progress(*columns, console=Console(stderr=True), transient=True, expand=True) as progress:
        fetching = progress.add_task("", total=None, visible=False)
        task = progress.add_task("", total=total)

        def tell(event: Event) -> None:
            if event.kind == "download":
                progress.update(
                    fetching, visible=True, completed=event.fetched, total=event.to_fetch, description=event.text
                )
            elif event.kind == "progress":
                progress.update(task, completed=_done(event, total), description=event.text)
            elif event.kind in {"start", "resume"}:
                progress.update(fetching, visible=False)
            if event.kind in {"warning", "resume"}:
                word = "resuming" if event.kind == "resume" else event.kind
                progress.console.print(f"{word}: {event.text}", markup=False, highlight=False, soft_wrap=True)

        yield tell
