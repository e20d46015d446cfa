"""Uploading a folder to a hub."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plait.errors import CheckpointError, OutputError
from plait.hub.faults import as_first_line, hub_faults
from plait.hub.library import endpoint, is_hub_id, is_offline, library, quiet_bars

__all__ = ["Pushed", "push_folder"]

_STALE = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
"""Weights of an earlier push, which may have been split otherwise: whatever of these is not pushed now is removed."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where a push ended up."""

    url: str
    """Its page, for people."""
    commit: str


def push_folder(
    folder: Path,
    repo: str,
    *,
    private: bool,
    revision: str | None,
    message: str,
    ignore: Sequence[str],
    quiet: bool,
) -> Pushed:
    """Make the repository where it is missing, and upload all files of `folder` but those that `ignore` matches.

    What an interrupted push has uploaded is not sent again.

    Raises:
        CheckpointError: the hub refuses, or cannot be reached; saying the way out.
        OutputError: the push is refused here.
    """
    _check(repo)
    api: Any = library().HfApi()
    with hub_faults(repo, revision), quiet_bars() if quiet else nullcontext():
        try:
            api.create_repo(repo, private=private or None, exist_ok=True)
            if private and not api.model_info(repo).private:
                raise OutputError(
                    f"{repo} is there and everybody can read it; --private would change nothing. Make it private at "
                    f"{endpoint()}/{repo}/settings first, or push to another name."
                )
            if revision is not None:
                api.create_branch(repo, branch=revision, exist_ok=True)
            made = api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                revision=revision,
                commit_message=message,
                ignore_patterns=list(ignore),
                delete_patterns=list(_STALE),
            )
        except ValueError as error:  # as huggingface_hub says that a card or a folder is not to its liking
            raise CheckpointError(f"{repo}: the hub refuses the push: {as_first_line(error)}.") from error
    return Pushed(f"{endpoint()}/{repo}" + (f"/tree/{revision}" if revision else ""), str(made.oid))


def _check(repo: str) -> None:
    if not is_hub_id(repo):
        raise OutputError(f"{repo!a} is no name of a repository; write owner/name.")
    hub = library()
    if is_offline():
        raise OutputError(f"{repo}: HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it.")
    if hub.get_token() is None:
        raise OutputError(
            f"{repo}: no token to push with. Log in (`hf auth login`), or set HF_TOKEN to one that may write."
        )
