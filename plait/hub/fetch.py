"""Fetching files whole into huggingface_hub's cache: space looked at first, cut downloads gone on with, all checked."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from plait.errors import CheckpointError, OutputError
from plait.hub.faults import hub_faults, is_transient, patiently
from plait.hub.library import cache_folder, is_offline, library, quiet_bars
from plait.hub.pieces import PartialFile, forget, partial_file
from plait.hub.requests import ask, file_url
from plait.hub.snapshot import repository_folder
from plait.hub.store import kept_revisions

__all__ = ["fetch", "to_fetch"]

_AT_ONCE = 4
_BUFFER = 1 << 20
_SHA256 = 64
Tell = Callable[[str, int, int], None]
"""Told of progress: which file, bytes that are there by now, bytes in all."""


def to_fetch(paths: Iterable[str]) -> tuple[PartialFile, ...]:
    """Return which of these files of the cache are not there, but can be had."""
    found = (partial_file(path) for path in dict.fromkeys(paths))
    return tuple(file for file in found if file is not None)


def fetch(paths: Iterable[str], tell: Tell | None = None, *, beside: Path | None = None, more: int = 0) -> None:
    """Fetch those of `paths` that are not there; all else is left alone.

    Args:
        paths: Files; only those that `open_snapshot` made known matter.
        tell: Called from any thread.
        beside: Where `more` bytes will be written afterwards; counted where it is the same disk.
        more: See `beside`.

    Raises:
        CheckpointError: offline, or the hub does not give them; what came is kept, and the next call goes on there.
        OutputError: there is not enough space.
    """
    files = to_fetch(paths)
    if not files:
        return
    if is_offline():
        names = ", ".join(file.shown for file in files)
        raise CheckpointError(
            f"Not in the cache: {names}. HF_HUB_OFFLINE is set, so nothing can be fetched. Unset it, or fetch them first: "
            f"hf download {files[0].repo} --revision {files[0].commit}"
        )
    _require_space(files, beside, more)
    meter = _Meter(sum(file.size for file in files), tell or (lambda _name, _done, _total: None))
    with quiet_bars(), ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = [pool.submit(_fetch_one, file, meter) for file in files]
        try:
            _raise_first(wait(futures, return_when=FIRST_EXCEPTION).done)
        finally:
            meter.stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
    for file in files:
        _keep_refs(file)


def _raise_first(futures: Iterable[Future[None]]) -> None:
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in errors:
        raise error


@dataclass
class _Meter:
    """Adds up what all threads fetched."""

    total: int
    tell: Tell
    done: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, name: str, count: int) -> None:
        if self.stopped.is_set():
            raise InterruptedError("another download failed, or the user stopped")
        with self._lock:
            self.done += count
            self.tell(name, self.done, self.total)


def _require_space(files: Sequence[PartialFile], beside: Path | None, more: int) -> None:
    place = _standing(cache_folder())
    needed = sum(file.size - _begun(file) for file in files)
    written = more if beside is not None and _standing(beside).stat().st_dev == place.stat().st_dev else 0
    free = shutil.disk_usage(place).free
    if free < needed + written:
        out = f" and {written / 1e9:.2f} GB for the output on the same disk" if written else ""
        raise OutputError(
            f"{cache_folder()}: {needed / 1e9:.2f} GB are to be fetched{out}, {free / 1e9:.2f} GB are free. "
            "Free some space, or let HF_HUB_CACHE name a folder on another disk."
        )


def _standing(path: Path) -> Path:
    """Return the nearest folder above a path that is there."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.is_dir())


def _blob(file: PartialFile) -> Path:
    """Where huggingface_hub keeps the content of a file of this SHA-256 or git hash."""
    return repository_folder(file.repo) / "blobs" / file.entry.etag


def _part(file: PartialFile) -> Path:
    return _blob(file).with_name(f"{file.entry.etag}.plait.incomplete")


def _begun(file: PartialFile) -> int:
    """Bytes of the file that are here already."""
    for place in (_blob(file), _part(file)):
        with suppress(OSError):
            return min(file.size, place.stat().st_size)
    return 0


def _fetch_one(file: PartialFile, meter: _Meter) -> None:
    """Bring one file into the cache, where huggingface_hub and all that use it find it."""
    with hub_faults(file.repo, file.commit):
        if not _by_xet(file) and len(file.entry.etag) == _SHA256 and not _blob(file).exists():
            _fetch_blob(file, meter)
            shown = file.size
        else:
            shown = 0
        found = patiently(lambda: library().hf_hub_download(file.repo, file.name, revision=file.commit))
    size = Path(found).stat().st_size
    if size != file.size:
        raise CheckpointError(f"{found}: {size} bytes, but the hub lists {file.size}. Remove it, and run this again.")
    meter(file.shown, file.size - shown)
    forget(file)


def _by_xet(file: PartialFile) -> bool:
    """Whether huggingface_hub has the faster way for this file: hf_xet, which goes on with a cut by itself."""
    hub = library()
    if getattr(hub.constants, "HF_HUB_DISABLE_XET", True) or find_spec("hf_xet") is None:
        return False
    url = file_url(file.repo, file.commit, file.name)
    return getattr(patiently(lambda: hub.get_hf_file_metadata(url)), "xet_file_data", None) is not None


def _fetch_blob(file: PartialFile, meter: _Meter) -> None:
    """Fetch a file's content to where huggingface_hub keeps it, going on with what an earlier attempt left."""
    from filelock import FileLock

    part, blob = _part(file), _blob(file)
    lock = cache_folder() / ".locks" / repository_folder(file.repo).name / f"{part.name}.lock"
    for folder in (part.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if not blob.exists():
            with part.open("a+b") as stream:
                _Download(file, stream, meter).run()
            part.replace(blob)


class _Download:
    """One file on its way: its stream, and the SHA-256 of what is in it."""

    def __init__(self, file: PartialFile, stream: BinaryIO, meter: _Meter) -> None:
        self._file = file
        self._stream = stream
        self._meter = meter
        self._digest: Any = hashlib.sha256()
        self._done = 0

    def run(self) -> None:
        self._take_what_is_there()
        resumed = self._done > 0
        self._fetch()
        if self._is_wrong() and resumed:  # what an earlier attempt left may be damaged
            self._begin_again()
            self._fetch()
        if self._is_wrong():
            self._stream.truncate(0)
            raise CheckpointError(
                f"{self._file.repo}: {self._file.name}: what came is not what the hub lists (SHA-256 "
                f"{self._digest.hexdigest()[:16]}… for {self._file.entry.etag[:16]}…). Nothing of it is kept; run this again"
            )

    def _is_wrong(self) -> bool:
        return bool(self._digest.hexdigest() != self._file.entry.etag)

    def _fetch(self) -> None:
        while self._done < self._file.size:
            before = self._done
            try:
                patiently(self._go_on)
            except Exception as error:
                if self._done <= before or not is_transient(error):  # as long as something comes, it is tried again
                    raise

    def _take_what_is_there(self) -> None:
        self._stream.seek(0)
        while block := self._stream.read(_BUFFER):
            self._count(block)
        if self._done > self._file.size:
            self._begin_again()

    def _begin_again(self) -> None:
        self._stream.truncate(0)
        self._meter(self._file.shown, -self._done)
        self._digest, self._done = hashlib.sha256(), 0

    def _count(self, block: bytes) -> None:
        self._digest.update(block)
        self._done += len(block)
        self._meter(self._file.shown, len(block))

    def _go_on(self) -> None:
        file = self._file
        with ask(file_url(file.repo, file.commit, file.name), self._done) as answer:
            if answer.size is not None and answer.size != file.size:
                raise CheckpointError(
                    f"{file.repo}: {file.name} should have {file.size} bytes, but the hub sends {answer.size}. Try again; "
                    "if it stays so, the repository is damaged"
                )
            if answer.begin != self._done:
                self._begin_again()  # a server that sends files whole
            for chunk in answer.chunks:
                self._stream.write(chunk)
                self._count(chunk)
        self._stream.flush()
        if self._done < file.size:
            raise ConnectionError(f"{self._done} bytes of {file.size} came")
        if self._done > file.size:
            self._begin_again()
            raise ConnectionError(f"more than the {file.size} bytes of {file.name} came")


def _keep_refs(file: PartialFile) -> None:
    """Let huggingface_hub's cache know branches that stood for this commit, as its own downloads do."""
    for revision in kept_revisions(file.repo, file.commit):
        ref = repository_folder(file.repo) / "refs" / revision
        with suppress(OSError):
            ref.parent.mkdir(parents=True, exist_ok=True)
            temporary = ref.with_name(f"{ref.name}.{os.getpid()}")
            temporary.write_text(file.commit, encoding="utf-8")
            temporary.replace(ref)
