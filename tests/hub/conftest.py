"""The hub of these tests, and processes that use it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
from hub_server import Handler, Hub


@pytest.fixture(scope="session")
def _server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def plait_cache(tmp_path_factory) -> Path:
    """Plait's cache: the compiled loops are those of all tests, what is kept of hubs is a test's own."""
    kept = Path(os.environ.get("PLAIT_CACHE_DIR") or Path.home() / ".cache" / "plait")
    made = tmp_path_factory.mktemp("plait-cache")
    for entry in kept.iterdir() if kept.is_dir() else ():
        if entry.name != "hub":
            (made / entry.name).symlink_to(entry)
    return made


@pytest.fixture
def environment(tmp_path, plait_cache, _server) -> dict[str, str]:
    """What a process needs to use the hub of the test, and caches of its own."""
    shutil.rmtree(plait_cache / "hub", ignore_errors=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "PYTHON", "COV"))}
    return clean | {
        "HF_ENDPOINT": f"http://127.0.0.1:{_server.server_port}", "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PLAIT_CACHE_DIR": str(plait_cache),
        "NO_PROXY": "127.0.0.1,localhost",
    }  # fmt: skip


@pytest.fixture
def hub(_server, environment, tmp_path, monkeypatch) -> Hub:
    """An empty hub, which this process uses."""
    monkeypatch.chdir(tmp_path)
    made = _server.hub = Hub()
    made.endpoint = environment["HF_ENDPOINT"]
    made.cdn = made.endpoint.replace("127.0.0.1", "localhost")  # another host, which may not see tokens
    constants = huggingface_hub.constants
    template = made.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {
        "ENDPOINT": made.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(tmp_path / "hf" / "hub"),
        "HF_TOKEN_PATH": str(tmp_path / "hf" / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("PLAIT_CACHE_DIR", environment["PLAIT_CACHE_DIR"])
    monkeypatch.setattr("plait.hub.faults.FIRST_WAIT", 0.01)
    monkeypatch.setattr("plait.hub.pieces._KNOWN", {})
    return made


@pytest.fixture
def offline(monkeypatch):
    """Call it, and the hub is out of bounds."""

    def switch(value: bool = True) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", value)

    return switch


@pytest.fixture
def plait(environment, tmp_path):
    """Run the command line in a process of its own."""

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "plait", *arguments],
            cwd=tmp_path, env=environment | more, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    return run
