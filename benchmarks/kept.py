"""What was measured, kept as it comes: a line of JSON for each run, so that a run cut short loses one measurement."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from measure import Run

__all__ = ["Kept", "Record", "Session"]


@dataclass(frozen=True)
class Session:
    """One start of the benchmark."""

    session: str
    """When it was started."""
    machine: str
    command: str
    facts: Sequence[str]


@dataclass(frozen=True)
class Record:
    """One measured process, and all that must be the same for it to stand beside another."""

    method: str
    who: str
    recipe: str
    """Tells recipe and inputs."""
    build: str
    """Tells the version of what was run."""
    session: str
    run: Run


class Kept:
    """The measurements in a file, to which more are added, and mergekit's from other files."""

    def __init__(self, file: Path, machine: str, others: Sequence[Path] = ()) -> None:
        self.file, self.machine = file, machine
        self.sessions: dict[str, Session] = {}
        self.records: list[Record] = []
        self._current: Session | None = None
        for other in others:
            self._read(other, ("mergekit",))
        if file.exists():
            self._read(file, ("copy", "plait", "mergekit"))

    def _read(self, file: Path, contenders: Sequence[str]) -> None:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            try:
                told = json.loads(line)
            except json.JSONDecodeError:
                print(f"{file}:{number}: not a whole measurement, left out")
                continue
            if "machine" in told:
                session = Session(**told)
                if session.machine != self.machine:
                    raise SystemExit(f"{file} was measured on {session.machine}, this is {self.machine}: take another")
                self.sessions[session.session] = session
            elif told["who"] in contenders:
                self.records.append(Record(**told | {"run": Run(**told["run"])}))

    def begin(self, command: str, facts: Sequence[str]) -> None:
        """Begin a session, which is written down with its first measurement."""
        self._current = Session(time.strftime("%Y-%m-%d %H:%M:%S"), self.machine, command, facts)

    def add(self, method: str, who: str, recipe: str, build: str, run: Run) -> None:
        if self._current is None:
            raise RuntimeError("no session was begun")
        lines: list[Session | Record] = []
        if self._current.session not in self.sessions:
            self.sessions[self._current.session] = self._current
            lines.append(self._current)
        self.records.append(Record(method, who, recipe, build, self._current.session, run))
        lines.append(self.records[-1])
        torn = self.file.exists() and not self.file.read_bytes().endswith(b"\n")
        with self.file.open("a") as out:
            out.write("\n" * torn + "".join(json.dumps(asdict(line)) + "\n" for line in lines))

    def find(self, method: str, who: str, recipe: str, build: str | None = None) -> list[Record]:
        """The measurements of one contender; without `build` those of the build that was measured last."""
        found = [one for one in self.records if (one.method, one.who, one.recipe) == (method, who, recipe)]
        wanted = build if build is not None else found[-1].build if found else ""
        return [one for one in found if one.build == wanted]
