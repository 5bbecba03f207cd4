"""pytest-overfit: prove that a PyTorch model can memorise one sample before it costs GPU days.

The names below are imported when they are first used: `import pytest_overfit` costs nothing at pytest start-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_overfit.api import run_config, run_overfit
    from pytest_overfit.diagnose.cause import Cause
    from pytest_overfit.diagnose.evidence import Evidence
    from pytest_overfit.errors import ConfigError, OverfitError, PairError
    from pytest_overfit.judge.finding import Finding
    from pytest_overfit.result import OverfitResult
    from pytest_overfit.run.record import RunRecord
    from pytest_overfit.settings.criteria import Criteria, Limit
    from pytest_overfit.settings.settings import Budget
    from pytest_overfit.trainer.loading import load_config

__version__ = "0.2.0"

__all__ = [
    "Budget",
    "Cause",
    "ConfigError",
    "Criteria",
    "Evidence",
    "Finding",
    "Limit",
    "OverfitError",
    "OverfitResult",
    "PairError",
    "RunRecord",
    "load_config",
    "run_config",
    "run_overfit",
]

_HOMES = {
    "Budget": "settings.settings",
    "Cause": "diagnose.cause",
    "ConfigError": "errors",
    "Criteria": "settings.criteria",
    "Evidence": "diagnose.evidence",
    "Finding": "judge.finding",
    "Limit": "settings.criteria",
    "OverfitError": "errors",
    "OverfitResult": "result",
    "PairError": "errors",
    "RunRecord": "run.record",
    "load_config": "trainer.loading",
    "run_config": "api",
    "run_overfit": "api",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
