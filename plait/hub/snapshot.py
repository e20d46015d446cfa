"""A repository at one commit: its listing, its small files in the cache, and its weights known but not fetched."""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from plait.errors import CheckpointError
from plait.hub.faults import hub_faults, is_unreachable, patiently
from plait.hub.library import cache_folder, endpoint, is_offline, library, quiet_bars
from plait.hub.pieces import PartialFile, register
from plait.hub.store import Entry, Listing, keep_commit, keep_listing, kept_commit, kept_listing

__all__ = ["Snapshot", "hub_name", "open_snapshot", "repository_folder"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT, _TRIES = 15.0, 3
"""Seconds for the one request that lists a repository, and how often it is made: a mistyped path looks like a name."""
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a commit lies, or will lie, in huggingface_hub's cache."""

    repo: str
    commit: str
    folder: Path


def hub_name(repo: str, revision: str | None) -> str:
    """Return a hub name as users write it.

    >>> hub_name("org/name", "v2"), hub_name("org/name", None)
    ('org/name@v2', 'org/name')
    """
    return f"{repo}@{revision}" if revision else repo


def repository_folder(repo: str) -> Path:
    """Return a model's folder in huggingface_hub's cache."""
    return cache_folder() / f"models--{repo.replace('/', '--')}"


def open_snapshot(
    repo: str, revision: str | None, small: Sequence[str], commits: MutableMapping[str, str] | None = None
) -> Snapshot:
    """Find the commit that `revision` stands for, and fetch its files of the patterns `small`, nothing else.

    The other files of its top folder can then be read of by `partial_file`, and fetched by `fetch`. Without a network,
    or with HF_HUB_OFFLINE=1, what was last seen is taken from the caches.

    Args:
        repo: `org/name`.
        revision: Branch, tag or commit; None for `main`.
        small: Globs; one without a `/` is for the top folder alone.
        commits: What revisions stand for, by hub name, for those that are settled; this one is added.

    Raises:
        CheckpointError: there is no such thing, or it cannot be had; saying the way out.
    """
    library()
    name = hub_name(repo, revision)
    pinned = (commits or {}).get(name)
    with hub_faults(repo, revision):
        listing, notes = _listed(repo, pinned or revision or "main")
        folder = repository_folder(repo) / "snapshots" / listing.commit
        if commits is not None:
            commits[name] = listing.commit
        _fetch_small(repo, listing, folder, small)
        if not folder.is_dir():
            folder.mkdir(parents=True)
    here = {file.name for file in folder.iterdir()}
    away = {one: entry for one, entry in listing.files.items() if one not in here and "/" not in one}
    files = [PartialFile(str(folder / one), repo, listing.commit, entry) for one, entry in away.items()]
    register(folder, files, (f"{hub_name(repo, revision)} is commit {listing.commit} of the hub.", *notes))
    return Snapshot(repo, listing.commit, folder)


def _listed(repo: str, revision: str) -> tuple[Listing, tuple[str, ...]]:
    """Return the listing of what `revision` stands for; without files where only huggingface_hub's cache knows it."""
    is_commit = _COMMIT.fullmatch(revision) is not None
    if is_commit and (kept := kept_listing(repo, revision)) is not None:
        return kept, ()
    if is_offline():
        return _last_seen(repo, revision, "HF_HUB_OFFLINE is set"), ()
    try:
        info: Any = patiently(
            lambda: library().HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=_TIMEOUT), _TRIES
        )
    except Exception as error:
        if not is_unreachable(error):
            raise
        try:
            found = _last_seen(repo, revision, "")
        except CheckpointError:
            raise error from None
        return found, (f"{endpoint()} could not be reached: taken as last seen.",)
    listing = Listing(info.sha, dict(map(_entry, info.siblings or ())))
    if not _COMMIT.fullmatch(listing.commit):
        raise CheckpointError(f"{endpoint()} does not say which commit {repo} is at; is HF_ENDPOINT a hub?")
    keep_listing(repo, listing)
    if not is_commit:
        keep_commit(repo, revision, listing.commit)
    return listing, ()


def _entry(sibling: Any) -> tuple[str, Entry]:
    if sibling.size is None:
        raise CheckpointError(f"{endpoint()} does not say how long {sibling.rfilename} is; is HF_ENDPOINT a hub?")
    etag = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    return sibling.rfilename, Entry(sibling.size, etag or "")


def _last_seen(repo: str, revision: str, why: str) -> Listing:
    """Return what the caches know of a revision; the commit alone where plait did not list it."""
    commit = revision if _COMMIT.fullmatch(revision) else _ref(repo, revision) or kept_commit(repo, revision)
    if commit is not None:
        kept = kept_listing(repo, commit)
        if kept is not None:
            return kept
        if (repository_folder(repo) / "snapshots" / commit).is_dir():
            return Listing(commit, {})
    raise CheckpointError(
        f"{why}, and nothing of {hub_name(repo, revision)} is in the cache ({cache_folder()}). Unset it, or fetch the "
        f"model first: hf download {repo}"
    )


def _ref(repo: str, revision: str) -> str | None:
    """Return what huggingface_hub's cache has a branch or tag for."""
    try:
        return (repository_folder(repo) / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None


def _fetch_small(repo: str, listing: Listing, folder: Path, small: Sequence[str]) -> None:
    """Fetch small files into huggingface_hub's cache; those that are there cost no request.

    Raises:
        CheckpointError: offline, and some are not there; all are named.
    """
    wanted = [name for name in listing.files if _fits(name, small) and not (folder / name).is_file()]
    if not wanted:
        return
    if is_offline():
        raise CheckpointError(
            f"{repo} at commit {listing.commit}: not in the cache: {', '.join(wanted)}. HF_HUB_OFFLINE is set, so nothing "
            f"can be fetched. Unset it, or fetch them first: hf download {repo} --revision {listing.commit}"
        )
    from concurrent.futures import ThreadPoolExecutor

    def fetch(name: str) -> None:
        found = patiently(lambda: library().hf_hub_download(repo, name, revision=listing.commit))
        if Path(found).stat().st_size != listing.files[name].size:
            raise CheckpointError(
                f"{found}: {Path(found).stat().st_size} bytes, but the hub lists {listing.files[name].size}. Remove it"
            )

    with quiet_bars():
        fetch(wanted[0])  # alone: what is refused once would be refused for each
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(fetch, wanted[1:]))


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, one) and name.count("/") == one.count("/") for one in patterns)
