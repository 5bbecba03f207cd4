"""Both ways to compose a config: by Hydra, and by ourselves."""

from __future__ import annotations

import sys

import pytest

from pytest_overfit.trainer.compose import hydra_available


def block_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes Hydra as good as not installed."""
    for name in [name for name in sys.modules if name.startswith("hydra.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hydra", None)
    assert not hydra_available()


@pytest.fixture(params=["with_hydra", "without_hydra"])
def composer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs the test twice: with Hydra, and without."""
    if request.param == "with_hydra":
        if not hydra_available():
            pytest.skip("Hydra is not installed")
    else:
        block_hydra(monkeypatch)
    return str(request.param)
