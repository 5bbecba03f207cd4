"""Sessions of pytest inside the test, on the tiny config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.configs import write_tiny
from tests.support.sessions import keep_modules, own_plugins_only

TinyConfig = Callable[..., Path]


@pytest.fixture(autouse=True)
def sessions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions inside the test keep torch, and their order."""
    keep_modules(monkeypatch)
    own_plugins_only(request, monkeypatch)


@pytest.fixture
def tiny(pytester: pytest.Pytester) -> TinyConfig:
    """Writes the tiny config into the session's folder: ``tiny("a.yaml", replace=((old, new),))``."""

    def write(name: str = "tiny.yaml", replace: tuple[tuple[str, str], ...] = ()) -> Path:
        return write_tiny(pytester.path, name, replace=replace)

    return write
