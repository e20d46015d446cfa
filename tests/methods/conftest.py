from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

_HERE = Path(__file__).parent


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that takes `golden_case` on each case of the table, named by its method."""
    if "golden_case" in metafunc.fixturenames:
        cases = [(name, case) for name, cases in _golden().GOLDEN.items() for case in cases]
        metafunc.parametrize("golden_case", cases, ids=[name for name, _ in cases])


@pytest.fixture(scope="session")
def golden() -> ModuleType:
    """The table of golden cases."""
    return _golden()


def _golden() -> ModuleType:
    """Return golden.py, which no test module can import by name."""
    name = "plait_golden_cases"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _HERE / "golden.py")
        if spec is None or spec.loader is None:
            raise ImportError(name)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]
