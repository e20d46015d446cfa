"""The wheel, and installations that are not the developer's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RECIPE = {"models": [{"model": "a"}, {"model": "b"}], "merge_method": "linear", "parameters": {"weight": 0.5}}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT],
        check=True, capture_output=True, cwd=folder,
    )  # fmt: skip
    (built,) = folder.glob("plait-*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_has_the_package_its_types_and_its_licence(wheel):
    names = set(wheel.namelist())
    modules = {str(file.relative_to(ROOT)) for file in (ROOT / "plait").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    assert "plait/py.typed" in names
    (licence,) = (name for name in names if name.endswith("LICENSE"))
    assert b"Apache License" in wheel.read(licence)
    assert {name.split("/")[0] for name in names} == {"plait", licence.split("/")[0]}


def test_the_core_depends_on_neither_torch_nor_transformers(wheel):
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    fields = Parser().parsestr(wheel.read(metadata).decode())
    core = {line for line in fields.get_all("Requires-Dist") if "extra ==" not in line}
    assert core
    assert not any(line.startswith(("torch", "transformers")) for line in core)
    assert set(fields.get_all("Provides-Extra")) >= {"torch", "hf"}
    (points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert b"plait = plait.cli:main" in wheel.read(points)


@pytest.fixture
def unwritable(tmp_path):
    """A copy of the package beside which no compiled code can be kept: `__pycache__` is a file in every folder."""
    site = tmp_path / "site"
    shutil.copytree(ROOT / "plait", site / "plait", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [site / "plait", *(path for path in (site / "plait").rglob("*") if path.is_dir())]:
        (folder / "__pycache__").touch()
    return site


@pytest.fixture
def models(tmp_path, write_llama):
    write_llama("a", 1)
    write_llama("b", 2)
    (tmp_path / "r.yml").write_text(yaml.safe_dump(RECIPE))


def test_where_the_package_cannot_be_written_compiled_code_is_kept_at_home(core, unwritable, models, tmp_path):
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home/cache")}
    core("-m", "plait", "merge", "r.yml", "out", "-q", PYTHONPATH=str(unwritable), **home)
    assert list((tmp_path / "home").rglob("*.nbi"))


def test_where_nothing_can_be_written_it_still_merges(core, unwritable, models, tmp_path):
    (tmp_path / "no-home").touch()
    home = {"HOME": str(tmp_path / "no-home"), "XDG_CACHE_HOME": str(tmp_path / "no-home")}
    core("-m", "plait", "merge", "r.yml", "out", "-q", PYTHONPATH=str(unwritable), **home)


def test_two_merges_may_compile_into_one_cache(core_python, models, tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    commands = [[core_python, "-m", "plait", "merge", "r.yml", out, "-q"] for out in ("one", "two")]
    running = [subprocess.Popen(command, cwd=tmp_path, env=environment) for command in commands]
    assert [process.wait(120) for process in running] == [0, 0]
    weights = [(tmp_path / out / "model.safetensors").read_bytes() for out in ("one", "two")]
    assert weights[0] == weights[1]
    assert list((tmp_path / "cache").rglob("*.nbi"))
