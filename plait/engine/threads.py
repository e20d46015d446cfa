"""Threads that take items from one list until it is empty, one of them fails, or the user stops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

__all__ = ["Stopped", "run_on_threads"]

Act = Callable[[Any], None]


class Stopped(Exception):  # noqa: N818 - not an error: another thread has one, or the user said stop
    """Raised inside work that should not go on."""


def run_on_threads(items: Iterable[Any], start: Callable[[], Act], threads: int, stop: threading.Event) -> None:
    """Give each item to one of the threads, in order of the list; `start` makes what a thread acts with.

    The first error sets `stop`, on which all others leave off, and is raised here once all have; so does Ctrl-C.
    """
    errors: list[BaseException] = []
    loop = _loop(items, start, stop, errors)
    running: list[tuple[threading.Thread, threading.Event]] = []
    try:
        for number in range(threads):
            ended = threading.Event()
            thread = threading.Thread(target=loop, args=(ended,), name=f"plait-{number}", daemon=True)
            thread.start()
            running.append((thread, ended))
        _wait(running)
    except BaseException:
        stop.set()
        _wait(running)
        raise
    if errors:
        raise errors[0]


def _wait(running: Iterable[tuple[threading.Thread, threading.Event]]) -> None:
    """Wait until every thread has ended.

    Not by `join` alone: a Ctrl-C that meets it makes it take the thread for ended, before Python 3.13.
    """
    for thread, ended in running:
        while not ended.wait(0.2):
            pass  # so that a signal is noticed wherever waiting without end would not be interrupted
        thread.join()


def _loop(
    items: Iterable[Any], start: Callable[[], Act], stop: threading.Event, errors: list[BaseException]
) -> Callable[[threading.Event], None]:
    queue, lock = iter(list(items)), threading.Lock()

    def loop(ended: threading.Event) -> None:
        try:
            with np.errstate(all="ignore"):  # what is not finite is found, and told, where it is written
                act = start()
                while not stop.is_set():
                    with lock:
                        item = next(queue, None)
                    if item is None:
                        return
                    act(item)
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread
            errors.append(error)
            stop.set()
        finally:
            ended.set()

    return loop
