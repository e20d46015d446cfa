"""huggingface_hub, which knows caches, tokens and endpoints; imported when the first hub name is met."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plait.errors import CheckpointError

__all__ = ["cache_folder", "endpoint", "is_hub_id", "is_offline", "library", "quiet_bars"]

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def is_hub_id(reference: str) -> bool:
    """Whether `reference` has the form of a hub id.

    >>> is_hub_id("org/name"), is_hub_id("./folder"), is_hub_id("a/b/c")
    (True, False, False)
    """
    return _HUB_ID.fullmatch(reference) is not None and ".." not in reference and "--" not in reference


def library() -> Any:
    """Import huggingface_hub; a third of a second, for hub names alone.

    Raises:
        CheckpointError: it is not installed; with the command that installs it.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise CheckpointError(
            f"names of the hub need the package huggingface_hub ({error}). "
            "Install it (pip install 'huggingface_hub>=0.26'), or name a folder of this machine"
        ) from error
    return huggingface_hub


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set."""
    return bool(library().constants.HF_HUB_OFFLINE)


def endpoint() -> str:
    """Return the hub's address: HF_ENDPOINT, or the public one."""
    return str(library().constants.ENDPOINT)


def cache_folder() -> Path:
    """Return huggingface_hub's cache: HF_HUB_CACHE, or `hub` under HF_HOME."""
    return Path(library().constants.HF_HUB_CACHE).resolve()


@contextmanager
def quiet_bars() -> Iterator[None]:
    """Let huggingface_hub draw no progress bars of its own within."""
    bars = library().utils
    if bars.are_progress_bars_disabled():
        yield
        return
    bars.disable_progress_bars()
    try:
        yield
    finally:
        bars.enable_progress_bars()
