"""Sessions of pytest inside the test, on the tiny config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from _pytest.pytester import SysModulesSnapshot

from tests.support.configs import write_tiny

REPOSITORY = Path(__file__).resolve().parents[2]
TinyConfig = Callable[..., Path]


@pytest.fixture(autouse=True)
def keep_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session inside a test forgets the modules that it imported; torch does not survive a second import.

    All modules are kept but those of the session's own test files.
    """

    def keep(self: pytest.Pytester) -> SysModulesSnapshot:
        return SysModulesSnapshot(preserve=lambda name: not name.startswith(("test_", "conftest")))

    monkeypatch.setattr(pytest.Pytester, "_Pytester__take_sys_modules_snapshot", keep)


@pytest.fixture
def tiny(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> TinyConfig:
    """Writes the tiny config into the session's folder: ``tiny("a.yaml", replace=((old, new),))``."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def write(name: str = "tiny.yaml", replace: tuple[tuple[str, str], ...] = ()) -> Path:
        return write_tiny(pytester.path, name, replace=replace)

    return write
