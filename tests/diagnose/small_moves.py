"""What the tests of things that move are made of: data, a run of them, its causes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pytest_overfit import OverfitResult, run_overfit


def data() -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, generator=drawn), torch.arange(6) % 3


def learn(model: Any, batch: Any, loss: Any = None, **settings: Any) -> OverfitResult:
    settings = {"optimizer": lambda p: torch.optim.Adam(p, lr=1e-2), "max_steps": 400, **settings}
    if "step" not in settings:
        loss = loss or nn.CrossEntropyLoss()
    return run_overfit(model, batch, loss, **settings)


def causes(result: OverfitResult) -> list[str]:
    return [cause.id for cause in result.causes]
