"""What a hub refuses, told with the way out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from plait.errors import CheckpointError, PlaitError, did_you_mean
from plait.hub.library import cache_folder, endpoint, library

__all__ = ["as_first_line", "hub_faults", "is_transient", "is_unreachable", "patiently", "status_of"]

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_CARRIERS = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"})
TRIES, FIRST_WAIT, LONGEST_WAIT = 5, 0.5, 8.0
"""How often a request is made, and the seconds waited between: doubled each time."""
Value = TypeVar("Value")


def patiently(ask: Callable[[], Value], tries: int = TRIES) -> Value:
    """Call `ask` until it answers; what may pass (a cut, a busy hub) is tried again a few times."""
    wait = FIRST_WAIT
    for _ in range(tries - 1):
        done, value = _tried(ask)
        if done:
            return cast("Value", value)
        time.sleep(wait)
        wait = min(LONGEST_WAIT, 2 * wait)
    return ask()


def _tried(ask: Callable[[], Value]) -> tuple[bool, Value | None]:
    """Call `ask`; (False, None) for an error that may pass."""
    try:
        return True, ask()
    except Exception as error:
        if not is_transient(error):
            raise
        return False, None


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    status = status_of(error)
    return status in _TRANSIENT if status is not None else _is_cut(error)


def is_unreachable(error: Exception) -> bool:
    """Whether nobody answered, or only a server that said it cannot: what is in the cache may do."""
    status = status_of(error)
    return status >= 500 if status is not None else _is_cut(error)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error tells of."""
    status = getattr(getattr(_chief(error), "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _chief(error: BaseException) -> BaseException:
    """What is behind huggingface_hub's "neither hub nor cache has it" and "error while uploading"."""
    wraps = isinstance(error, (library().errors.LocalEntryNotFoundError, RuntimeError))
    return _chief(error.__cause__) if wraps and error.__cause__ is not None else error


def _is_cut(error: BaseException) -> bool:
    error = _chief(error)
    if isinstance(error, library().errors.OfflineModeIsEnabled):
        return False
    by_carrier = type(error).__module__.partition(".")[0] in _CARRIERS and isinstance(error, Exception)
    return by_carrier or isinstance(error, (ConnectionError, TimeoutError))


@contextmanager
def hub_faults(repo: str, revision: str | None = None) -> Iterator[None]:
    """Turn what huggingface_hub raises inside into a CheckpointError that says what is wrong and the way out."""
    try:
        yield
    except PlaitError:
        raise
    except Exception as error:
        text = _told(error, repo, revision)
        if text is None:
            raise
        raise CheckpointError(text) from error


def _told(error: BaseException, repo: str, revision: str | None) -> str | None:
    errors = library().errors
    error = _chief(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set, so nothing can be fetched of {repo}. Unset it"
    if isinstance(error, errors.GatedRepoError):
        page = f"{endpoint()}/{repo}"
        return f"{repo} is gated: its owner must let you in. Ask for access at {page}, then log in: {_login()}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{endpoint()} has no model {repo}, or it is private. Check the name; for a private one, {_login()}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision or 'main'!r}. {_revisions(repo, revision)}".rstrip(". ")
    if isinstance(error, errors.HFValidationError):
        return f"{repo} is no name that a hub knows: {as_first_line(error)}"
    return _told_by_status(error, repo)


def _told_by_status(error: BaseException, repo: str) -> str | None:
    status, said = status_of(error), as_first_line(error)
    if status is None:
        return _told_of_a_cut(error)
    if status == 401:
        return f"the hub does not know your token (401). Renew it: {_login()}"
    if status == 403:
        return f"your token may not do this with {repo} (403: {said}). Use one that may: {_login()}"
    if status < 500 and status != 429:
        return f"the hub refuses this for {repo} ({status}: {said})"
    return f"{endpoint()} answered {status} ({said}). Try again later; what is fetched is kept"


def _told_of_a_cut(error: BaseException) -> str | None:
    if not _is_cut(error):
        if isinstance(error, OSError) and error.strerror:
            return f"{error.filename or cache_folder()}: {error.strerror}. HF_HUB_CACHE may name another cache"
        return None
    return (
        f"{endpoint()} cannot be reached: {type(error).__name__} ({as_first_line(error)}). Look at the network and at "
        "HF_ENDPOINT, and try again: what is fetched is kept. With HF_HUB_OFFLINE=1 only the cache is used"
    )


def as_first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0].strip().rstrip(".:") if lines else type(error).__name__


def _login() -> str:
    has = library().get_token() is not None
    return (
        "the token that was sent may not read it (`hf auth login`, or HF_TOKEN, gives another)"
        if has
        else "no token was sent (`hf auth login`, or set HF_TOKEN)"
    )


def _revisions(repo: str, revision: str | None) -> str:
    """Say which branches and tags there are, if the hub tells."""
    try:
        refs: Any = library().HfApi().list_repo_refs(repo)
        names = [ref.name for ref in (*refs.branches, *refs.tags)]
    except Exception:  # noqa: BLE001 - what matters was said already
        return "Name a branch, a tag or a commit"
    near = did_you_mean(revision or "main", names)
    return f"It has {', '.join(names[:12])}{' …' if len(names) > 12 else ''}. {near}"
