"""Fixtures to import: sessions over a copy of the miniature of a Hydra trainer's repository."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.sessions import keep_modules, own_plugins_only

MINIATURE = Path(__file__).resolve().parents[2] / "examples" / "hydra_trainer"
LEFTOVERS = ("__pycache__", ".*_cache", "overfit_logs")
CONFIG = Path("training", "config", "single_pair_test.yaml")
Session = Callable[..., pytest.RunResult]


@pytest.fixture(autouse=True)
def sessions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions inside the test keep torch, and run in order."""
    pytest.importorskip("hydra", reason="the miniature's own classes need hydra-core")
    keep_modules(monkeypatch)
    own_plugins_only(request, monkeypatch)


@pytest.fixture
def checkout(pytester: pytest.Pytester) -> Path:
    """A copy of the miniature in the session's folder."""
    shutil.copytree(MINIATURE, pytester.path, ignore=shutil.ignore_patterns(*LEFTOVERS), dirs_exist_ok=True)
    return pytester.path


@pytest.fixture
def trained(pytester: pytest.Pytester, checkout: Path) -> Session:
    """Runs the miniature's config with overrides, and further arguments of pytest."""

    def run(*overrides: str, args: tuple[str, ...] = ()) -> pytest.RunResult:
        words = [word for override in overrides for word in ("--overfit-set", override)]
        return pytester.runpytest_inprocess("--overfit-config", str(CONFIG), "-p", "no:cacheprovider", *words, *args)

    return run
