"""Requests for a part of a file, through huggingface_hub's session (its proxies, certificates and offline switch)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from plait.hub.library import library

__all__ = ["CHUNK", "Answer", "ask", "file_url"]

CHUNK = 1 << 16  # what a cut loses at most


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sends: where its bytes begin in the file, how long the whole file is, and the bytes."""

    begin: int
    size: int | None
    chunks: Iterator[bytes]


def file_url(repo: str, commit: str, name: str) -> str:
    """Return where a file of a commit is fetched from."""
    hub = library()
    return str(hub.hf_hub_url(repo, name, revision=commit, endpoint=hub.constants.ENDPOINT))


@contextmanager
def ask(url: str, begin: int, end: int | None = None) -> Iterator[Answer]:
    """Ask for the bytes from `begin` to before `end` (None: the file's end). A server may send the whole file instead.

    Raises: what huggingface_hub raises for its own requests.
    """
    hub = library()
    span = f"bytes={begin}-{'' if end is None else end - 1}"
    headers = {**hub.utils.build_hf_headers(), "Range": span, "Accept-Encoding": "identity"}
    session: Any = hub.utils.get_session()
    timeout = hub.constants.HF_HUB_DOWNLOAD_TIMEOUT
    if callable(session.stream):  # httpx, of huggingface_hub 1.0 and later; requests has a switch of that name
        with session.stream("GET", url, headers=headers, timeout=timeout) as response:
            hub.utils.hf_raise_for_status(response)
            yield _answer(response, response.iter_bytes(CHUNK))
    else:
        with session.get(url, headers=headers, timeout=timeout, stream=True) as response:
            hub.utils.hf_raise_for_status(response)
            yield _answer(response, response.iter_content(CHUNK))


def _answer(response: Any, chunks: Iterator[bytes]) -> Answer:
    if response.status_code != 206:
        length = response.headers.get("Content-Length", "")
        return Answer(0, int(length) if length.isdigit() else None, chunks)
    span, _, size = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    begin = span.partition("-")[0]
    return Answer(int(begin) if begin.isdigit() else -1, int(size) if size.isdigit() else None, chunks)
