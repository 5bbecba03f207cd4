"""Documents of real runs: two that pass, one that fails with a cause."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn

from pytest_overfit import OverfitResult, run_overfit
from pytest_overfit.report.record.document import Document, SettingRow
from tests.support.documents import finished

PASSING, FAILING = "tests/test_a.py::test_learns", "tests/test_a.py::test_lr"


@cache
def result(*, lr: float = 1e-2, seeds: tuple[int, ...] = (0,), max_steps: int = 150) -> OverfitResult:
    """Six samples, three classes, a small network; ``lr`` 1e-6 cannot learn them."""
    torch.manual_seed(0)
    data = (torch.randn(6, 8), torch.tensor([0, 1, 2, 0, 1, 2]))

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=lr)

    return run_overfit(model, data, nn.CrossEntropyLoss(), optimizer=optimizer, max_steps=max_steps, seeds=seeds)


def document(verdict: OverfitResult | None, title: str = PASSING, **changes: Any) -> Document:
    """A finished document of a result, with one thing changed."""
    settings = (SettingRow("max_steps", "150", "@pytest.mark.overfit"),)
    return finished(title, verdict, **{"settings": settings, **changes})
