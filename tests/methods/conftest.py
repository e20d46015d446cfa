from __future__ import annotations

from typing import Any

import pytest
from golden.case import tables


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that takes `golden_case` on each case there is, named by its method."""
    if "golden_case" in metafunc.fixturenames:
        cases = [(name, case) for name, cases in tables().GOLDEN.items() for case in cases]
        metafunc.parametrize("golden_case", cases, ids=[name for name, _ in cases])


@pytest.fixture(scope="session")
def golden() -> Any:
    """All golden cases by method."""
    return tables()
