from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from filecmp import cmp
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Core = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def core_python() -> Path:
    """The interpreter of the environment that has plait's wheel and its core dependencies alone."""
    found = ROOT / ".venv-core" / "bin" / "python"
    if not found.exists():
        pytest.skip("no .venv-core: `make test` makes it")
    (installed,) = (ROOT / ".venv-core").glob("lib/python*/site-packages/plait")
    sources = [file.relative_to(ROOT / "plait") for file in (ROOT / "plait").rglob("*.py")]
    if any(not (installed / one).exists() or not cmp(installed / one, ROOT / "plait" / one) for one in sources):
        pytest.skip("the wheel in .venv-core is not of this source: `make test` renews it")
    return found


@pytest.fixture
def core(core_python: Path, tmp_path: Path) -> Core:
    """Run that interpreter in the test's folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV"))}
        done = subprocess.run(
            [core_python, "-W", "error", *arguments],
            cwd=tmp_path, env=inherited | environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    return run
