"""What plait itself keeps of repositories: which files a commit has, what branches stood for, and headers.

Under `$PLAIT_CACHE_DIR/hub`, or plait's part of the user's cache folder. It may be removed at any time. Weights are not
there but in huggingface_hub's own cache.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from plait.caches import own_cache
from plait.hub.library import endpoint

__all__ = [
    "Entry",
    "Listing",
    "keep_commit",
    "keep_listing",
    "kept_commit",
    "kept_listing",
    "kept_revisions",
    "pieces_file",
]

_ETAG = re.compile(r"[0-9A-Za-z]{8,128}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a commit: its bytes, and what tells its content: SHA-256, or git's hash of small files."""

    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a commit."""

    commit: str
    files: Mapping[str, Entry]


def _root() -> Path:
    return own_cache() / "hub"


def _repository(repo: str) -> Path:
    return _root() / quote(urlsplit(endpoint()).netloc, safe="") / f"models--{repo.replace('/', '--')}"


def pieces_file(entry: Entry) -> Path | None:
    """Where pieces of a file are kept; None where its content has no name that a file may have."""
    return _root() / "pieces" / f"{entry.etag}-{entry.size}" if _ETAG.fullmatch(entry.etag) else None


def kept_listing(repo: str, commit: str) -> Listing | None:
    """Return the files of a commit, if they were listed once."""
    found = _read(_repository(repo) / f"{commit}.json")
    try:
        files = {str(name): Entry(int(size), str(etag)) for name, (size, etag) in found["files"].items()}
        return Listing(str(found["commit"]), files)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def keep_listing(repo: str, listing: Listing) -> None:
    """Keep the files of a commit, which never change."""
    files = {name: [entry.size, entry.etag] for name, entry in listing.files.items()}
    _write(_repository(repo) / f"{listing.commit}.json", {"commit": listing.commit, "files": files})


def kept_commit(repo: str, revision: str) -> str | None:
    """Return what a branch or tag stood for when it was last asked for."""
    commit = _read(_repository(repo) / "revisions.json").get(revision)
    return commit if isinstance(commit, str) else None


def keep_commit(repo: str, revision: str, commit: str) -> None:
    """Keep what a branch or tag stands for."""
    file = _repository(repo) / "revisions.json"
    known = _read(file)
    if known.get(revision) != commit:
        _write(file, {**known, revision: commit})


def kept_revisions(repo: str, commit: str) -> list[str]:
    """Return the branches and tags that stood for a commit when they were last asked for."""
    return [revision for revision, kept in _read(_repository(repo) / "revisions.json").items() if kept == commit]


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: Path, value: Mapping[str, Any]) -> None:
    """Write it whole or not at all; a cache that cannot be written to does no harm."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        made = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}")
        made.write_text(json.dumps(value), encoding="utf-8")
        made.replace(file)
