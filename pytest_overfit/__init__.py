"""pytest-overfit: prove that a PyTorch model can memorise one sample before it costs GPU days.

The names below are imported when they are first used: `import pytest_overfit` costs nothing at pytest start-up.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "Finding",
    "OverfitError",
    "OverfitResult",
    "PairError",
    "RunRecord",
    "load_config",
    "overfit_config",
]

_HOMES = {
    "ConfigError": "errors",
    "Finding": "judge.finding",
    "OverfitError": "errors",
    "OverfitResult": "result",
    "PairError": "errors",
    "RunRecord": "run.record",
    "load_config": "config.loading",
    "overfit_config": "api",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
