"""Methods in files of the user's own, and of installed packages."""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Sequence
from importlib.abc import SourceLoader
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec
from pathlib import Path

from plait.methods.method import MethodError, replacing

__all__ = ["load_methods"]

_LOADED: dict[Path, tuple[bytes, set[tuple[str, bool]]]] = {}
"""Each file that was run: its content then, and what it entered."""


def load_methods(files: Sequence[str]) -> None:
    """Enter the methods in Python files of the user's own, and those of installed packages (group `plait.methods`).

    A file that was loaded before is run again only if it has changed; its new methods then replace its old ones.

    Raises:
        MethodError: a file cannot be run, or declares a method wrongly or by a name that is taken. Nothing of that
            file is entered then.
    """
    for point in entry_points(group="plait.methods"):
        _load_installed(point)
    for file in files:
        _load(file)


def _load_installed(point: EntryPoint) -> None:
    try:
        point.load()
    except Exception as error:
        owner = point.dist.name if point.dist else point.value
        raise MethodError(f"methods of the package {owner}: {type(error).__name__}: {error}") from error


class _Source(SourceLoader):
    """Runs the bytes that were read, and leaves no compiled file beside the user's (which may be out of date, too)."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self.content = str(path), content

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002 - a loader's signature
        return self.path

    def get_data(self, path: str | bytes) -> bytes:  # noqa: ARG002 - a loader's signature
        return self.content


def _load(file: str) -> None:
    path = Path(file).resolve()
    if not path.is_file():
        raise MethodError(f"There is no file {file} to load methods from.")
    content = path.read_bytes()
    former = _LOADED.get(path, (b"", set()))
    if path in _LOADED and former[0] == content:
        return
    with replacing(former[1]) as entered:
        _run(file, path, content)
    _LOADED[path] = content, entered


def _run(file: str, path: Path, content: bytes) -> None:
    name = f"plait_user_methods_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    loader = _Source(path, content)
    module = module_from_spec(ModuleSpec(name, loader, origin=str(path)))
    module.__file__ = str(path)
    former = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(name)
        if former is not None:
            sys.modules[name] = former
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        place = f"{file}:{lines[-1]}" if lines else file
        what = str(error) if isinstance(error, MethodError) else f"{type(error).__name__}: {error}"
        raise MethodError(f"{place}: {what}") from error
