"""A hub on this machine: it speaks what huggingface_hub speaks, counts what it serves, and fails when it is told to."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS_FROM = 2048
"""Files from this size on, and all weights, are kept as LFS: served by another address, named by their SHA-256."""


@dataclass
class Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    private: bool = False
    gated: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        state = b"".join(name.encode() + hashlib.sha256(data).digest() for name, data in sorted(files.items()))
        sha = hashlib.sha1(state + branch.encode(), usedforsecurity=False).hexdigest()
        self.commits[sha] = files
        self.refs[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        return self.refs.get(revision, revision if revision in self.commits else None)


@dataclass
class Fault:
    """Applies to requests whose method and path match, `times` times."""

    pattern: str
    times: int
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    """Bytes of the body that are sent before the connection is closed."""
    whole: bool = False
    """Ranges are not understood."""
    wrong_size: int | None = None
    garbled: bool = False
    slow: bool = False


class Hub:
    """The server's state. `requests` has "METHOD path" of each, `served` the bytes of all bodies."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.tokens: list[tuple[str, str]] = []
        self.served = 0
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.endpoint = self.cdn = ""
        self.granted = "hf_granted"

    def add(self, repo: str, files: dict[str, bytes] | Path, branch: str = "main", **traits: bool) -> str:
        """Add a commit; returns its hash."""
        if isinstance(files, Path):
            files = {one.relative_to(files).as_posix(): one.read_bytes() for one in files.rglob("*") if one.is_file()}
        repository = self.repositories.setdefault(repo, Repository())
        for name, value in traits.items():
            setattr(repository, name, value)
        for data in files.values():
            self.objects[hashlib.sha256(data).hexdigest()] = data
        return repository.commit(files, branch)

    def fail(self, pattern: str, times: int = 1, **how: Any) -> None:
        self.faults.append(Fault(pattern, times, **how))

    def forget(self) -> None:
        """Count anew."""
        self.requests.clear()
        self.tokens.clear()
        self.served = 0

    def fault(self, line: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, line):
                    fault.times -= 1
                    return fault
        return None


def is_lfs(name: str, data: bytes) -> bool:
    return name.endswith((".safetensors", ".bin")) or len(data) >= LFS_FROM


def etag(name: str, data: bytes) -> str:
    if is_lfs(name, data):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Any

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        line = f"{self.command} {urlsplit(self.path).path}"
        with self.hub.lock:
            self.hub.requests.append(line)
            self.hub.tokens.append((line.split()[1][:5], self.headers.get("Authorization", "")))
        self.trouble = self.hub.fault(line)
        if self.trouble is not None and self.trouble.status is not None:
            self.send(self.trouble.status, b"{}", self.trouble.headers)
            return
        path = unquote(urlsplit(self.path).path)
        for pattern, answer in ROUTES:
            if found := re.fullmatch(pattern, path):
                answer(self, **found.groupdict())
                return
        self.send(404, b"{}")

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server calls

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        headers = dict(headers or {})
        headers.setdefault("Content-Length", str(len(data)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.trouble.cut_after if self.trouble else None
        sent = data if cut is None else data[:cut]
        for at in range(0, len(sent), 1 << 18 if self.trouble and self.trouble.slow else 1 << 30):
            if self.trouble and self.trouble.slow:
                time.sleep(0.05)
            self.wfile.write(sent[at : at + (1 << 18)] if self.trouble and self.trouble.slow else sent)
        self.wfile.flush()
        with self.hub.lock:
            self.hub.served += len(sent)
        if cut is not None:
            self.close_connection = True
            self.connection.close()

    def json(self, value: Any, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def data(self, data: bytes) -> None:
        """Send a file or the range of it that is asked for."""
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        size = self.trouble.wrong_size if self.trouble and self.trouble.wrong_size else len(data)
        if self.trouble and self.trouble.garbled:
            data = bytes(byte ^ 255 for byte in data)
        if span is None or (self.trouble and self.trouble.whole):
            self.send(200, data)
            return
        low, high = int(span[1]), min(int(span[2] or len(data)), len(data) - 1)
        self.send(206, data[low : high + 1], {"Content-Range": f"bytes {low}-{high}/{size}"})

    def repository(self, repo: str, *, content: bool = False) -> Repository | None:
        """Return the repository, or refuse as the hub does."""
        found = self.hub.repositories.get(repo)
        granted = self.headers.get("Authorization") == f"Bearer {self.hub.granted}"
        if found is None or (found.private and not granted):
            self.send(404 if granted else 401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return None
        if found.gated and content and not granted:
            self.send(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
            return None
        return found

    def info(self, repo: str, revision: str) -> None:
        found = self.repository(repo)
        if found is None:
            return
        sha = found.find(revision)
        if sha is None:
            self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = []
        for name, data in found.commits[sha].items():
            lfs = {"sha256": etag(name, data), "size": len(data), "pointerSize": 134}
            more = {"lfs": lfs} if is_lfs(name, data) else {}
            siblings.append({"rfilename": name, "size": len(data), "blobId": etag(name, data)[:40], **more})
        blobs = "blobs" in parse_qs(urlsplit(self.path).query)
        self.json({
            "id": repo, "sha": sha, "private": found.private, "tags": [], "downloads": 0,
            "siblings": siblings if blobs else [{"rfilename": one["rfilename"]} for one in siblings],
        })  # fmt: skip

    def head(self, repo: str) -> None:
        self.info(repo, "main")

    def tree(self, repo: str, revision: str) -> None:
        found = self.hub.repositories[repo]
        entries = []
        for name, data in found.commits[found.find(revision) or ""].items():
            entry = {"type": "file", "path": name, "size": len(data), "oid": etag(name, data)[:40]}
            lfs = (
                {"lfs": {"oid": etag(name, data), "size": len(data), "pointerSize": 134}} if is_lfs(name, data) else {}
            )
            entries.append(entry | lfs)
        self.json(entries)

    def refs(self, repo: str) -> None:
        found = self.hub.repositories[repo]
        refs = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in found.refs.items()]
        self.json({"branches": refs, "tags": [], "converts": []})

    def resolve(self, repo: str, revision: str, name: str) -> None:
        found = self.repository(repo, content=True)
        if found is None:
            return
        sha = found.find(revision)
        data = found.commits.get(sha or "", {}).get(name)
        if data is None:
            self.send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha or ""})
            return
        headers = {"X-Repo-Commit": sha or "", "ETag": f'"{etag(name, data)}"'}
        if is_lfs(name, data):
            headers |= {"X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{etag(name, data)}"'}
            self.send(302, b"", headers | {"Location": f"{self.hub.cdn}/cdn/{etag(name, data)}"})
        elif self.command == "HEAD":
            self.send(200, data, headers)
        else:
            self.data(data)

    def cdn(self, oid: str) -> None:
        self.data(self.hub.objects[oid])

    def create(self) -> None:
        asked = json.loads(self.body)
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self.hub.repositories:
            self.json({"url": f"{self.hub.endpoint}/{repo}"}, 409)
            return
        self.hub.add(
            repo,
            {".gitattributes": b"*.safetensors filter=lfs"},
            private=asked.get("visibility") == "private" or bool(asked.get("private")),
        )
        self.json({"url": f"{self.hub.endpoint}/{repo}"})

    def preupload(self, repo: str, revision: str) -> None:
        found = self.repository(repo)
        if found is None:
            return
        files = json.loads(self.body)["files"]
        modes = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": revision not in found.refs,
            }
            for one in files
        ]
        self.json({"files": modes})

    def batch(self, repo: str) -> None:
        if self.repository(repo) is None:
            return
        objects = []
        for one in json.loads(self.body)["objects"]:
            there = one["oid"] in self.hub.objects
            upload = {"upload": {"href": f"{self.hub.endpoint}/upload/{one['oid']}", "header": {}}}
            objects.append({**one, **({} if there else {"actions": upload})})
        self.json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.objects[oid] = self.body
        self.send(200, b"{}")

    def make_branch(self, repo: str, branch: str) -> None:
        found = self.hub.repositories[repo]
        if branch in found.refs:
            self.send(409, b"{}")
            return
        found.refs[branch] = found.refs["main"]
        self.json({})

    def make_commit(self, repo: str, revision: str) -> None:
        found = self.hub.repositories[repo]
        files = dict(found.commits[found.refs[revision]])
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                found.messages.append(value["summary"])
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        sha = found.commit(files, revision)
        url = f"{self.hub.endpoint}/{repo}/commit/{sha}"
        self.json({"commitUrl": url, "commitOid": sha, "success": True})

    def yes(self) -> None:
        self.json({"warnings": [], "errors": []})


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
ROUTES: list[tuple[str, Callable[..., None]]] = [
    (rf"/api/models/{_REPO}/revision/(?P<revision>.+)", Handler.info),
    (rf"/api/models/{_REPO}", Handler.head),
    (rf"/api/models/{_REPO}/refs", Handler.refs),
    (rf"/api/models/{_REPO}/tree/(?P<revision>.+)", Handler.tree),
    (rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", Handler.resolve),
    (r"/cdn/(?P<oid>\w+)", Handler.cdn),
    (r"/api/repos/create", Handler.create),
    (r"/api/validate-yaml", Handler.yes),
    (rf"/api/models/{_REPO}/preupload/(?P<revision>.+)", Handler.preupload),
    (rf"/{_REPO}\.git/info/lfs/objects/batch", Handler.batch),
    (r"/upload/(?P<oid>\w+)", Handler.upload),
    (rf"/api/models/{_REPO}/branch/(?P<branch>.+)", Handler.make_branch),
    (rf"/api/models/{_REPO}/commit/(?P<revision>.+)", Handler.make_commit),
]
