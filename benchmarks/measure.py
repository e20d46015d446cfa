#!/usr/bin/env python3
"""Run one command and tell its wall time, processor time and peak memory.

    python -I -S benchmarks/measure.py LOG LIMIT COMMAND [ARGUMENT ...]

LIMIT is the seconds after which the command is stopped, 0 for none.

A process of its own, and a small one: the peak memory that Linux tells of a child is never less than what its parent
held when it was started, so whoever has numpy loaded must not be that parent.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

_PEAK_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Run:
    """What one process took: seconds on the clock and of the processors, bytes of memory at its peak."""

    wall: float
    cpu: float
    peak: int
    stopped: bool = False
    """Whether it was still at work when its time was up."""


class RunFailedError(Exception):
    """A measured command ended with an exit code other than 0."""


def run(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None, limit: float = 0
) -> Run:
    """Run a command in a fresh small process and measure it; what it prints goes to `log`.

    After `limit` seconds it is stopped; 0 is no limit.
    """
    whole = [sys.executable, "-I", "-S", str(Path(__file__)), str(log), str(limit), *map(str, command)]
    done = subprocess.run(whole, env=os.environ | dict(environment or {}), capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    if told.pop("code") and not told["stopped"]:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RunFailedError(f"{' '.join(map(str, command))}\n{tail}")
    return Run(**told)


def middle(runs: Sequence[Run]) -> Run:
    """The median of each number; stopped where one of them was."""
    walls, processors, peaks = ([getattr(r, what) for r in runs] for what in ("wall", "cpu", "peak"))
    return Run(median(walls), median(processors), int(median(peaks)), any(r.stopped for r in runs))


def main() -> None:
    log, limit, *command = sys.argv[1:]
    out = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
    actions = [(os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, out, 2)]
    stopped = []
    start = time.perf_counter()
    child = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)

    def stop(*_: object) -> None:
        stopped.append(child)
        os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, float(limit))
    _, status, used = os.wait4(child, 0)
    wall = time.perf_counter() - start
    signal.setitimer(signal.ITIMER_REAL, 0)
    told = {"wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * _PEAK_UNIT}
    print(json.dumps(told | {"stopped": bool(stopped), "code": os.waitstatus_to_exitcode(status)}))


if __name__ == "__main__":
    main()
